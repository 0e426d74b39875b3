"""Sweeps: many runs from one description, in one folder, on whatever machines there are."""
