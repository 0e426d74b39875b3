"""Benchmarks of tensornet beside its peers: ``python -m bench`` for the table, ``pytest bench --benchmark-only`` for pytest-benchmark's."""
