"""Train, register, score, explain."""
