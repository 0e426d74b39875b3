"""Training of a network with the penalty: arithmetic, processes, metrics, objective, loop."""
