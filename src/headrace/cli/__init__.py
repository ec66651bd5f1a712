"""The command line: no decisions in it."""
