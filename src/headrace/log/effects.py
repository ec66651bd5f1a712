"""What a change of a topic's definition does, in words, and what of it needs an approval. Pure.

The one idea: an approval is asked for where rows are deleted, where keys move, or where others decide: fewer days of
retention, more partitions, another owner, protection taken away. Everything else is said and done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from headrace.catalog.define import PROTECTED, Effect, Explain, Json
from headrace.core.rates import Rate
from headrace.core.times import Duration
from headrace.log.define import Topic

_DURATIONS = ("max_late", "max_ahead", "dedup", "skew")
_FIELD = (
    "type",
    "required",
    "minimum",
    "maximum",
    "available_after",
)  # of a field in a topic's meaning, behind its name


def about(topic: Topic) -> dict[str, Json]:
    """What is kept of a topic beside what it means: a change of it is a step and no other version."""
    held = topic.stewardship
    return {
        "description": topic.description,
        "owner": held.owner,
        "tags": list(held.tags),
        "quota": None if held.quota is None else held.quota.bytes_per_second,
        PROTECTED: held.protected,
    }


def assumed(topic: Topic) -> dict[str, Json]:
    """What a meaning of before these were kept is taken to say: nobody's, and the description that it has."""
    nobody: dict[str, Json] = {"owner": "", "tags": [], "quota": None, PROTECTED: True}
    return {"description": topic.description, **nobody}


def explain_with(name: str, readers: Sequence[str]) -> Explain:
    """The effects of a change of this topic. readers: what is computed over it, as "view activity"."""

    def explain(before: Mapping[str, Json], after: Mapping[str, Json]) -> tuple[Effect, ...]:
        return tuple(_effects(name, before, after, ", ".join(readers)))

    return explain


def _effects(name: str, before: Mapping[str, Json], after: Mapping[str, Json], readers: str) -> Iterator[Effect]:
    for what in ("key", "id", "event_time", "clock"):
        yield from _plainly(what, before, after)
    yield from _partitions(name, before, after, readers)
    yield from _partitioning(before, after)
    yield from _plainly("derived_of", before, after)
    yield from _plainly("payload", {"payload": "json", **before}, {"payload": "json", **after})
    yield from _retention(name, before, after)
    for what in _DURATIONS:
        yield from _plainly(what, before, after, _duration)
    yield from _fields(before.get("fields"), after.get("fields"))
    yield from _owner(name, before, after)
    yield from _plainly("tags", before, after, _tags)
    yield from _plainly("quota", before, after, _rate)
    yield from _protected(name, before, after)
    yield from _plainly("description", before, after)


def _plainly(
    what: str, before: Mapping[str, Json], after: Mapping[str, Json], shown: Callable[[Json], str] | None = None
) -> Iterator[Effect]:
    show = shown or _short
    if before.get(what) != after.get(what):
        yield Effect(f"{what}: {show(before.get(what))} -> {show(after.get(what))}")


def _partitions(name: str, before: Mapping[str, Json], after: Mapping[str, Json], readers: str) -> Iterator[Effect]:
    old, new = before.get("partitions"), after.get("partitions")
    if old == new:
        return
    says = f"partitions: {old} -> {new}"
    if isinstance(old, int) and isinstance(new, int) and new < old:
        yield Effect(f"{says}; a log refuses fewer partitions, as their rows would have no place")
        return
    touched = f"; it is read by {readers}" if readers else ""
    yield Effect(
        f"{says}; keys move: a key's later events lie in another partition than its earlier ones, so neither their "
        f"order nor joins partition by partition hold across the change{touched}",
        f"{name}.partitions",
    )


def _partitioning(before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Effect]:
    old, new = before.get("partitioning", "own"), after.get("partitioning", "own")
    if old != new:
        then = (
            "events count in whatever partition they lie"
            if new == "foreign"
            else "events in another partition than their key's are set aside"
        )
        yield Effect(f"partitioning: {old} -> {new}; {then}")


def _retention(name: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Effect]:
    old, new = before.get("retention"), after.get("retention")
    if old == new:
        return
    says = f"retention: {_kept(old)} -> {_kept(new)}"
    if isinstance(new, int) and (not isinstance(old, int) or new < old):
        yield Effect(f"{says}; events older than that are deleted", f"{name}.retention")
    else:
        yield Effect(says)


def _owner(name: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Effect]:
    """A topic of nobody's may be taken; one that has an owner is given away by an approval."""
    old, new = before.get("owner"), after.get("owner")
    if old != new:
        yield Effect(f"owner: {old or 'nobody'} -> {new or 'nobody'}", f"{name}.owner" if old else "")


def _protected(name: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> Iterator[Effect]:
    old, new = before.get(PROTECTED), after.get(PROTECTED)
    if old != new:
        if new:
            yield Effect("protected: no -> yes")
        else:
            yield Effect(
                f"protected: yes -> no; headrace topics drop {name} then deletes its rows without an approval",
                f"{name}.unprotect",
            )


def _fields(before: Json, after: Json) -> Iterator[Effect]:
    old, new = _by_name(before), _by_name(after)
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            yield Effect(f"field {name}: removed")
        elif name not in old:
            yield Effect(f"field {name}: added, {_field_shown(new[name])}")
        else:
            for what, was, wanted in zip(_FIELD, old[name], new[name], strict=True):
                if was != wanted:
                    shown = _duration if what == "available_after" else _short
                    yield Effect(f"field {name}, {what}: {shown(was)} -> {shown(wanted)}")


def _by_name(fields: Json) -> dict[str, list[Json]]:
    """Of a topic's meaning: each field is a list that begins with its name."""
    listed = fields if isinstance(fields, list) else []
    return {str(each[0]): each[1:] for each in listed if isinstance(each, list)}


def _field_shown(field: list[Json]) -> str:
    return str(field[0]) + (", required" if field[1] else "")


def _kept(micros: Json) -> str:
    return str(Duration(micros)) if isinstance(micros, int) else "for ever"


def _duration(micros: Json) -> str:
    return str(Duration(micros)) if isinstance(micros, int) else "none"


def _rate(rate: Json) -> str:
    return str(Rate(rate)) if isinstance(rate, int) else "none"


def _tags(tags: Json) -> str:
    return ", ".join(str(tag) for tag in tags) if isinstance(tags, list) and tags else "none"


def _short(value: Json) -> str:
    text = "none" if value in (None, "") else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
