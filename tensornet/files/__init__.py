"""Files: atomic writing, nested data with tensors, runs, and the formats of partly known tensors."""
