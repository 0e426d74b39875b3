"""What is read off weights and tensors: local components, ranks, singular values."""
