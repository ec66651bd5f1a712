"""Every leaky definition is refused with the path and the fix, and its honest twin is accepted (SEMANTICS 4.4)."""

from __future__ import annotations

import pytest

from headrace.core.errors import DefinitionError, LeakError, MaturityError
from tests.leaks.definitions import PAIRS, Pair
from tests.leaks.messages import GOLDEN, messages

each = pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])


@each
def test_a_leaky_definition_is_refused_with_its_path_and_the_fix(pair: Pair) -> None:
    with pytest.raises(pair.why) as caught:
        pair.leaky()
    error = caught.value
    said = str(error)
    if pair.why in (LeakError, MaturityError):
        path = error.facts["path"]
        assert isinstance(path, tuple)
        assert "path: " + " -> ".join(path) in said
        said = " -> ".join(path)
        assert error.hint, "no fix is offered"
    place = 0
    for part in pair.path:
        place = said.find(part, place)
        assert place >= 0, f"{part} is not named, in its place, in: {said}"
        place += len(part)
    assert pair.fix in error.hint


@each
def test_its_honest_twin_is_accepted(pair: Pair) -> None:
    assert pair.honest() is not None


def test_the_messages_are_as_they_were() -> None:
    """Changed on purpose? `python -m tests.leaks.messages`, and read the difference."""
    assert messages() == GOLDEN.read_text()


def test_there_are_many_ways_to_leak() -> None:
    assert len({pair.name for pair in PAIRS}) == len(PAIRS) >= 30
    assert all(issubclass(pair.why, DefinitionError) for pair in PAIRS)
