"""Which rows become training data, and what becomes of the others."""
