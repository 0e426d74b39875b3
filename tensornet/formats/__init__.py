"""Other formats of tensors on mode trees, and conversions between them."""
