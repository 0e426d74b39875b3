"""The dynamics of implicit regularization: gradient flow, and the paper's statements checked along it."""
