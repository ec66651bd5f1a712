"""How many random examples a test draws: its own number, as a share of the profile's (tests/conftest.py). Pure.

A number of a test's own would hold under every profile, also where the tests run once a mutant.
"""

from __future__ import annotations

from hypothesis import settings

USUAL = 100  # hypothesis' own default, which the profile `headrace` keeps


def examples(count: int) -> settings:
    """A decorator: so many examples as a rule, fewer under a profile that draws fewer."""
    return settings(max_examples=max(1, count * settings().max_examples // USUAL))
