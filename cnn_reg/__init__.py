"""Regularization of convolutional networks against locality (Section 6); of this version, only the command's front page."""
