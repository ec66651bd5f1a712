"""A topic's definition as JSON and back: what the log stores beside the rows, and what crosses the owner's socket.
Pure.

The text is canonical (sorted keys, no spaces), so that equal definitions are equal texts and a change is a new version.
What came into definitions later is written where it is not the default only: the texts of before stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from headrace.core.errors import DefinitionError, LogFormatError
from headrace.core.rates import Rate
from headrace.core.schema import DataType, Field, Kind
from headrace.core.times import Duration
from headrace.log.define import Derivation, Partitioning, Payload, Stewardship, Topic

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def topic_to_json(topic: Topic) -> str:
    """The definition, whole. Durations in microseconds. Equal topics give equal texts."""
    said: dict[str, Json] = {
        "name": topic.name,
        "key": topic.key,
        "id": topic.id,
        "event_time": topic.event_time,
        "partitions": topic.partitions,
        "max_late": topic.max_late.micros,
        "max_ahead": topic.max_ahead.micros,
        "dedup": topic.dedup.micros,
        "skew": topic.skew.micros,
        "retention": None if topic.retention is None else topic.retention.micros,
        "clock": topic.clock.value,
        "description": topic.description,
        "fields": [_field(f) for f in topic.schema],
    }
    if topic.payload is not Payload.JSON:
        said["payload"] = topic.payload.value
    if topic.partitioning is not Partitioning.OWN:
        said["partitioning"] = topic.partitioning.value
    if topic.derivation is not None:
        said["derived_of"] = topic.derivation.of
    said.update(_stewardship(topic.stewardship))
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def topic_from_json(text: str) -> Topic:
    """The definition that `topic_to_json` wrote. Raises: LogFormatError HR-0305 for a text that this version cannot
    read."""
    try:
        said = json.loads(text)
        return Topic(
            said["name"],
            key=said["key"],
            id=said["id"],
            event_time=said["event_time"],
            partitions=said["partitions"],
            max_late=Duration(said["max_late"]),
            max_ahead=Duration(said["max_ahead"]),
            dedup=Duration(said["dedup"]),
            skew=Duration(said["skew"]),
            retention=None if said["retention"] is None else Duration(said["retention"]),
            clock=said["clock"],
            payload=said.get("payload", Payload.JSON),
            partitioning=said.get("partitioning", Partitioning.OWN),
            owner=said.get("owner", ""),
            tags=said.get("tags", ()),
            quota=_quota(said.get("quota")),
            protected=said.get("protected", True),
            derivation=Derivation(of=said["derived_of"]) if "derived_of" in said else None,
            description=said["description"],
            fields={each["name"]: _field_from(each) for each in said["fields"]},
        )
    except (ValueError, KeyError, TypeError, DefinitionError) as error:
        raise LogFormatError(
            "HR-0305", "a stored topic definition cannot be read", detail=f"{type(error).__name__}: {error}"
        ) from error


def _stewardship(held: Stewardship) -> dict[str, Json]:
    said: dict[str, Json] = {}
    if held.owner:
        said["owner"] = held.owner
    if held.tags:
        said["tags"] = list(held.tags)
    if held.quota is not None:
        said["quota"] = held.quota.bytes_per_second
    if not held.protected:
        said["protected"] = False
    return said


def _quota(said: Json) -> Rate | None:
    if said is None:
        return None
    if isinstance(said, int) and said > 0:
        return Rate(said)
    raise ValueError(f"not a rate: {said!r}")


def _field(declared: Field) -> dict[str, Json]:
    said: dict[str, Json] = {"name": declared.name, "type": _type(declared.type)}
    if declared.required:
        said["required"] = True
    if declared.minimum is not None:
        said["minimum"] = declared.minimum
    if declared.maximum is not None:
        said["maximum"] = declared.maximum
    if declared.available_after is not None:
        said["available_after"] = declared.available_after.micros
    if declared.description:
        said["description"] = declared.description
    return said


def _field_from(said: Mapping[str, Json]) -> Field:
    after = said.get("available_after")
    return Field(
        name=str(said["name"]),
        type=_type_from(said["type"]),
        required=bool(said.get("required", False)),
        minimum=_bound(said.get("minimum")),
        maximum=_bound(said.get("maximum")),
        available_after=Duration(after) if isinstance(after, int) else None,
        description=str(said.get("description", "")),
    )


def _bound(said: Json) -> int | float | str | None:
    if said is None or isinstance(said, (int, float, str)):
        return said
    raise ValueError(f"not a bound: {said!r}")


def _type(declared: DataType) -> Json:
    if declared.kind is Kind.DECIMAL:
        return [declared.kind.value, declared.precision, declared.scale]
    if declared.kind is Kind.LIST:
        assert declared.item is not None
        return [declared.kind.value, _type(declared.item)]
    return declared.kind.value


def _type_from(said: Json) -> DataType:
    match said:
        case str():
            return DataType(Kind(said))
        case ["decimal", int(precision), int(scale)]:
            return DataType(Kind.DECIMAL, precision=precision, scale=scale)
        case ["list", item]:
            return DataType(Kind.LIST, item=_type_from(item))
    raise ValueError(f"not a type: {said!r}")
