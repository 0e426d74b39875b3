"""Contraction: what is asked -> network -> path -> program -> plan -> tensor."""
