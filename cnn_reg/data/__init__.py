"""Data sets whose tasks need long-range dependencies: Pathfinder, and Is Same Class."""
