"""The house rules, as fast tests. Each is a function from source to violations, and has a test that proves it bites."""
