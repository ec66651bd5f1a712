"""Declared against in force: changes, and the steps that make them. Pure.

The one idea: a plan is a value. Explaining, applying and refusing read the same list of steps, and each step says what
it expects to find, so that a plan made before another's apply stops instead of overwriting it. What cannot be taken
back (rows deleted, keys that move) is approved by name, one text each, which the plan says.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from headrace.catalog.define import KINDS, PROTECTED, Catalog, Declared, Effect, InForce, Json
from headrace.core.errors import DefinitionError, HeadraceError, UsageError, did_you_mean


class Change(enum.Enum):
    ADD = "add"
    CHANGE = "change"
    RETIRE = "retire"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change to one definition. expects: the fingerprint that must be in force before it, None for none.

    version: the version it makes; that in force, where the fingerprint stays. because: in words, what it does.
    replaces: the meaning in force that the plan was made from. approvals: the texts that must be given for it.
    """

    change: Change
    kind: str
    name: str
    version: int
    expects: str | None
    fingerprint: str | None
    meaning: str | None
    because: tuple[str, ...] = ()
    replaces: str | None = None
    approvals: tuple[str, ...] = ()

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
        raise _stale(step, f"expected {step.expects or 'nothing'} in force, seen {seen or 'nothing'}")
    if held is not None and step.replaces is not None and held.meaning != step.replaces:
        since = "; ".join(differences(step.replaces, held.meaning))
        raise _stale(step, f"it means the same, and says something else: {since}")


def _stale(step: Step, detail: str) -> HeadraceError:
    return HeadraceError(
        "HR-0803",
        f"{step.kind} {step.name!r} has changed since the plan was made",
        detail=detail,
        hint="headrace plan, then headrace apply",
    )


def check_approved(steps: Sequence[Step], given: Collection[str]) -> None:
    """That what needs an approval has one, and that each one given is of these steps.

    Raises: HeadraceError HR-0811 with the approvals that are missing, UsageError HR-0812 for one that nothing needs.
    """
    needed = [text for step in steps for text in step.approvals]
    for text in given:
        if text not in needed:
            raise UsageError(
                "HR-0812",
                f"nothing here needs the approval {text!r}",
                hint=did_you_mean(text, needed) or "headrace plan says what needs one",
            )
    missing = tuple(text for text in needed if text not in given)
    if missing:
        raise HeadraceError(
            "HR-0811",
            "1 change of this plan needs an approval"
            if len(missing) == 1
            else f"{len(missing)} changes of this plan need an approval",
            detail="nothing was applied",
            hint="headrace apply " + " ".join(f"--approve {text}" for text in missing),
            missing=missing,
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
    if held is None:
        return Step(
            change=Change.ADD,
            kind=one.kind,
            name=one.name,
            version=1,
            expects=None,
            fingerprint=one.fingerprint,
            meaning=one.meaning,
        )
    same = held.fingerprint == one.fingerprint
    before, after = {**one.assumed, **_read(held.meaning)}, _read(one.meaning)
    if same and before == after:
        return None
    effects = _explained(one, before, after, held)
    return Step(
        change=Change.CHANGE,
        kind=one.kind,
        name=one.name,
        version=held.version + (not same),
        expects=held.fingerprint,
        fingerprint=one.fingerprint,
        meaning=one.meaning,
        because=tuple(effect.says for effect in effects),
        replaces=held.meaning,
        approvals=tuple(effect.approval for effect in effects if effect.approval),
    )


def _explained(one: Declared, before: dict[str, Json], after: dict[str, Json], held: InForce) -> tuple[Effect, ...]:
    if one.explain is not None:
        return one.explain(before, after)
    return tuple(Effect(says) for says in differences(held.meaning, one.meaning))


def _retire(held: InForce) -> Step:
    protected = _read(held.meaning).get(PROTECTED) is True
    return Step(
        change=Change.RETIRE,
        kind=held.kind,
        name=held.name,
        version=held.version,
        expects=held.fingerprint,
        fingerprint=None,
        meaning=None,
        because=("it is protected; what it holds stays",) if protected else (),
        replaces=held.meaning,
        approvals=(f"{held.name}.retire",) if protected else (),
    )


def _read(meaning: str) -> dict[str, Json]:
    said = json.loads(meaning)
    return said if isinstance(said, dict) else {"": said}


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
