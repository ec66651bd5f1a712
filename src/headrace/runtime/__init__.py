"""The only place that wires: a project opened, its definitions, the catalog in its log."""
