"""``python -m tensornet`` is the command ``tensornet``."""

import sys

from tensornet.cli import main

if __name__ == "__main__":
    sys.exit(main())
