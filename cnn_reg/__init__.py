"""Regularization of convolutional networks against locality (Section 6)."""

from cnn_reg.data import SameClassPairs

__all__ = ["SameClassPairs"]
