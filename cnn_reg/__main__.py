"""``python -m cnn_reg`` is the command ``cnn-reg``."""

import sys

from cnn_reg.cli import main

if __name__ == "__main__":
    sys.exit(main())
