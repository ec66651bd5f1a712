"""Declared against in force: changes, and the steps that make them. Pure.

The one idea: a plan is a value. Explaining, applying and refusing read the same list of steps, and each step says what
it expects to find, so that a plan made before another's apply stops instead of overwriting it.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace.catalog.define import KINDS, Catalog, Declared, InForce
from headrace.core.errors import DefinitionError, HeadraceError, did_you_mean


class Change(enum.Enum):
    ADD = "add"
    CHANGE = "change"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change to one definition. expects: the fingerprint that must be in force before it, None for none.

    version: the version it makes. because: in words, what differs.
    """

    change: Change
    kind: str
    name: str
    version: int
    expects: str | None
    fingerprint: str | None
    meaning: str | None
    because: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.name


def plan(declared: Sequence[Declared], catalog: Catalog) -> tuple[Step, ...]:
    """The steps from what is in force to what is declared, in an order in which each finds what it needs.

    Raises: DefinitionError HR-0801 where two definitions share a kind and a name, HR-0802 where one needs what is not
    declared.
    """
    by_key = _by_key(declared)
    for one in declared:
        for need in one.needs:
            if need not in by_key:
                known = [name for kind, name in by_key if kind == need[0]]
                raise DefinitionError(
                    "HR-0802",
                    f"{one.kind} {one.name!r} needs {need[0]} {need[1]!r}, which is not declared",
                    hint=did_you_mean(need[1], known),
                )
    steps = [step for one in _in_order(declared) if (step := _step(one, catalog.entries.get(one.key))) is not None]
    gone = [held for key, held in catalog.entries.items() if key not in by_key]
    steps.extend(_retire(held) for held in sorted(gone, key=_retire_order))
    return tuple(steps)


def check(step: Step, catalog: Catalog) -> None:
    """A step's precondition. Raises: HeadraceError HR-0803, retryable by planning anew."""
    held = catalog.entries.get(step.key)
    seen = None if held is None else held.fingerprint
    if seen != step.expects:
        raise HeadraceError(
            "HR-0803",
            f"{step.kind} {step.name!r} has changed since the plan was made",
            detail=f"expected {step.expects or 'nothing'} in force, seen {seen or 'nothing'}",
            hint="headrace plan, then headrace apply",
        )


def applied(catalog: Catalog, step: Step) -> Catalog:
    """The catalog after the step."""
    entries = dict(catalog.entries)
    if step.change is Change.RETIRE:
        del entries[step.key]
    else:
        assert step.fingerprint is not None and step.meaning is not None
        entries[step.key] = InForce(
            kind=step.kind, name=step.name, version=step.version, fingerprint=step.fingerprint, meaning=step.meaning
        )
    return Catalog(entries)


def _by_key(declared: Sequence[Declared]) -> dict[tuple[str, str], Declared]:
    by_key: dict[tuple[str, str], Declared] = {}
    for one in declared:
        if one.key in by_key:
            raise DefinitionError(
                "HR-0801", f"two definitions of {one.kind} {one.name!r}", hint="rename or delete one of them"
            )
        by_key[one.key] = one
    return by_key


def _in_order(declared: Iterable[Declared]) -> list[Declared]:
    return sorted(declared, key=lambda one: (KINDS.index(one.kind), one.name))


def _retire_order(held: InForce) -> tuple[int, str]:
    return -KINDS.index(held.kind), held.name


def _step(one: Declared, held: InForce | None) -> Step | None:
    if held is not None and held.fingerprint == one.fingerprint:
        return None
    return Step(
        change=Change.ADD if held is None else Change.CHANGE,
        kind=one.kind,
        name=one.name,
        version=1 if held is None else held.version + 1,
        expects=None if held is None else held.fingerprint,
        fingerprint=one.fingerprint,
        meaning=one.meaning,
        because=() if held is None else differences(held.meaning, one.meaning),
    )


def _retire(held: InForce) -> Step:
    return Step(
        change=Change.RETIRE,
        kind=held.kind,
        name=held.name,
        version=held.version,
        expects=held.fingerprint,
        fingerprint=None,
        meaning=None,
    )


def differences(before: str, after: str) -> tuple[str, ...]:
    """Where two meanings differ, as paths with both values; at most twenty."""
    return tuple(_differences("", json.loads(before), json.loads(after)))[:20]


def _differences(path: str, before: object, after: object) -> Iterable[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _differences(f"{path}.{name}" if path else name, before.get(name), after.get(name))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _list_differences(path, before, after)
    elif before != after:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _list_differences(path: str, before: list[object], after: list[object]) -> Iterable[str]:
    """Lists of named things are compared by name, so that one added feature is one line."""
    if all(isinstance(item, dict) and "name" in item for item in (*before, *after)):
        old = {item["name"]: item for item in before if isinstance(item, dict)}
        new = {item["name"]: item for item in after if isinstance(item, dict)}
        for name in dict.fromkeys((*old, *new)):
            if name not in old or name not in new:
                yield f"{path}.{name}: {'added' if name not in old else 'removed'}"
            else:
                yield from _differences(f"{path}.{name}", old[name], new[name])
        return
    if len(before) != len(after):
        yield f"{path}: {_short(before)} -> {_short(after)}"
        return
    for index, (left, right) in enumerate(zip(before, after, strict=True)):
        yield from _differences(f"{path}[{index}]", left, right)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
