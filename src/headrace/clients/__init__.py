"""What others' systems are reached by: one folder or file a technology, the only importers of their libraries."""
