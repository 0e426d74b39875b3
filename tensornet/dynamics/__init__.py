"""A laboratory of the paper's dynamics: problem and factorization -> objective -> training -> records -> report and figures."""
