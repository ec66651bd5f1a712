"""Mutation: a plan.py is changed in one place at a time, and its tests must notice (`python -m tests.mutation`)."""
