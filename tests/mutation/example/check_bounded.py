"""What the proof of the mutation runner runs; not collected with the tests, as its name says."""

from __future__ import annotations

import pytest

from tests.mutation.example.bounded import bounded


def test_bounds() -> None:
    assert [bounded(value, 1, 3) for value in (0, 1, 2, 3, 4)] == [1, 1, 2, 3, 3]
    assert bounded(5, 2, 2) == 2
    with pytest.raises(ValueError):
        bounded(1, 3, 2)
