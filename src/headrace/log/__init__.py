"""Topics: append, read, groups."""
