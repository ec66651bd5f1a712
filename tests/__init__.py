"""The tests: unit, contract, golden, sim, e2e, tidy; `tests.needs` says what a test needs of the machine."""
