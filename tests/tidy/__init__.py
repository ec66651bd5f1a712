"""The house rules, as fast tests. Each rule is a function from source to violations, and has a test that proves it bites."""
