"""Factorizations as layers of a network, and the features that they are fed with."""
