"""The rows that become training data, and the reason why each of the others does not."""
