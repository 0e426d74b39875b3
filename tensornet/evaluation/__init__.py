"""Evaluation without the end tensor: entries and network outputs; shares no code with the contraction."""
