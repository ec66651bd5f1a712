"""Shipped for tests: clocks, faults, oracles, contract suites."""
