"""Learning a tensor from some of its entries."""
