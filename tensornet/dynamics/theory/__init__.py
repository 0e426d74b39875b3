"""The paper's lemmas, theorems and propositions, checked numerically on random factorizations."""
