"""What a Kafka log knows of its topics: their definitions, incarnations, versions, imports. Pure.

The one idea: the registry is a topic of one partition, folded by every process in the same way. A change says what it
was made from; of two changes made from the same state the first in the log counts, the other is void, and who made it
looks again. So no lock is needed, and no process is more right than another.

An operator's word that a clock was wrong is said here too (`Restart`), not in the partition: it is about rows that lie
before it, and who reads them must know it by then.

A topic is bound to the id that Kafka gave the topic that holds its rows: one that was made anew under the same name, by
whomever, is another topic. From where on a partition a definition is in force is said in the partition itself, by a
record without a value (log/kafka_rows.py:VERSION), so that all who read it judge alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headrace.core.errors import LogError, LogFormatError
from headrace.core.points import IMPORTS_FROM, Partition
from headrace.core.times import Duration
from headrace.log.codec import topic_from_json, topic_to_json
from headrace.log.define import Payload, Topic

NAME = "headrace.topics"  # behind the log's prefix
# Between an operator's look at the clock and the registry's leader having the event. Later, or where these two clocks
# differ by more, it is void: readers whose clocks are right may have gone on meanwhile.
SAID_WITHIN = Duration.parse("1m")
# Of imports, each with as many partitions as its topic: what is left of the 2**16 that an order key has room for.
IMPORT_PARTITIONS_MAX = (1 << 16) - IMPORTS_FROM - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """An operator's event: records of a live partition from `begin` to below `end`, Kafka offsets, count as stamped at
    `at`, milliseconds (SEMANTICS 1.2)."""

    partition: int
    begin: int
    end: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A sealed or unsealed import. first: the index of its first partition in the log. kafka_topic, kafka_id: where its
    rows lie. ends: positions, when it is sealed; rows: of each partition."""

    import_id: str
    first: int
    partitions: int
    form: Payload
    kafka_topic: str
    kafka_id: str
    ends: tuple[int, ...] | None = None
    rows: tuple[int, ...] = ()

    @property
    def sealed(self) -> bool:
        return self.ends is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A topic as the registry has it. versions: its definitions, version 1 first. source: of a derived topic, the
    incarnation of what it is derived of."""

    incarnation: int
    kafka_id: str
    versions: tuple[Topic, ...]
    imports: tuple[Import, ...] = ()
    source: int | None = None
    restarts: tuple[Restart, ...] = ()

    @property
    def topic(self) -> Topic:
        return self.versions[-1]

    @property
    def version(self) -> int:
        return len(self.versions)

    def first_version(self, index: int) -> int:
        """The version in force at a live partition's start: the first that has it."""
        return next(number for number, topic in enumerate(self.versions, 1) if topic.partitions > index)

    def import_of(self, index: int) -> tuple[Import, int] | None:
        """The import that a partition's index belongs to, and its number within."""
        for one in self.imports:
            if one.first <= index < one.first + one.partitions:
                return one, index - one.first
        return None

    def partition(self, index: int) -> Partition:
        return Partition(self.topic.name, self.incarnation, index)


@dataclass(slots=True)
class Registry:
    """The fold. `take` is given each record's value in order of offsets, and says whether it counts."""

    topics: dict[str, Registered] = field(default_factory=dict)
    incarnations: dict[str, int] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)  # ids of Kafka topics that nobody reads any more
    void: int = 0

    def take(self, value: bytes, stamp: int) -> bool:
        """stamp: the record's, milliseconds. Raises: LogFormatError HR-0305 for what this version cannot read."""
        try:
            said = json.loads(value)
            counts = self._taken(said, stamp)
        except (ValueError, KeyError, TypeError) as error:
            raise LogFormatError(
                "HR-0305", "the registry of topics cannot be read", detail=f"{type(error).__name__}: {error}"
            ) from error
        self.void += not counts
        return counts

    def _taken(self, said: Mapping[str, Any], stamp: int) -> bool:
        name = said["topic"]
        held = self.topics.get(name)
        if said["event"] == "declare":
            return self._declared(name, held, said)
        if held is None or held.incarnation != said["incarnation"]:
            return False
        match said["event"]:
            case "drop":
                del self.topics[name]
                self.dropped.update([held.kafka_id, *(one.kafka_id for one in held.imports)])
                return True
            case "import":
                return self._imported(name, held, said)
            case "seal":
                return self._sealed(name, held, said)
            case "restart":
                return self._restarted(name, held, said, stamp)
        raise ValueError(f"unknown event {said['event']!r}")

    def _declared(self, name: str, held: Registered | None, said: Mapping[str, Any]) -> bool:
        topic = topic_from_json(said["definition"])
        if held is None:
            if (said["incarnation"], said["version"]) != (self.incarnations.get(name, 0) + 1, 1):
                return False
            self.incarnations[name] = said["incarnation"]
            self.topics[name] = Registered(
                incarnation=said["incarnation"],
                kafka_id=said["kafka_id"],
                versions=(topic,),
                source=said.get("source"),
            )
            return True
        if (said["incarnation"], said["version"]) != (held.incarnation, held.version + 1):
            return False
        self.topics[name] = replace(held, versions=(*held.versions, topic))
        return True

    def _imported(self, name: str, held: Registered, said: Mapping[str, Any]) -> bool:
        if any(one.import_id == said["import_id"] for one in held.imports):
            return False
        made = Import(
            import_id=said["import_id"],
            first=next_import(held),
            partitions=said["partitions"],
            form=Payload(said["form"]),
            kafka_topic=said["kafka_topic"],
            kafka_id=said["kafka_id"],
        )
        self.topics[name] = replace(held, imports=(*held.imports, made))
        return True

    def _sealed(self, name: str, held: Registered, said: Mapping[str, Any]) -> bool:
        found = next((one for one in held.imports if one.import_id == said["import_id"]), None)
        if found is None or found.sealed:
            return False
        done = replace(found, ends=tuple(said["ends"]), rows=tuple(said["rows"]))
        self.topics[name] = replace(held, imports=tuple(done if one is found else one for one in held.imports))
        return True

    def _restarted(self, name: str, held: Registered, said: Mapping[str, Any], stamp: int) -> bool:
        made = tuple(Restart(**each) for each in said["restarts"])
        late = any(abs(stamp - each.at) > SAID_WITHIN.micros // 1_000 for each in made)
        if late or any(a.partition == b.partition and a.begin < b.end for a in made for b in held.restarts):
            return False  # of two for the same rows the first counts
        self.topics[name] = replace(held, restarts=(*held.restarts, *made))
        return True


def next_import(held: Registered) -> int:
    """The index of the next import's first partition. Raises: LogError HR-0314 where there is no room."""
    last = held.imports[-1] if held.imports else None
    first = IMPORTS_FROM if last is None else last.first + last.partitions
    if first + held.topic.partitions - IMPORTS_FROM > IMPORT_PARTITIONS_MAX:
        raise LogError("HR-0314", f"topic {held.topic.name!r}: no room for another import's partitions")
    return first


def judges_alike(old: Topic, new: Topic) -> bool:
    """Whether readers judge and read rows the same by both."""

    def law(topic: Topic) -> tuple[object, ...]:
        return (topic.schema, topic.max_late, topic.max_ahead, topic.dedup, topic.skew, topic.partitions)

    return law(old) == law(new)


def declaration(topic: Topic, *, incarnation: int, version: int, kafka_id: str, source: int | None = None) -> bytes:
    """source: as `Registered`, at version 1."""
    said = {
        "event": "declare", "topic": topic.name, "incarnation": incarnation, "version": version,
        "kafka_id": kafka_id, "definition": topic_to_json(topic),
        **({} if source is None else {"source": source}),
    }  # fmt: skip
    return _text(said)


def dropping(held: Registered) -> bytes:
    return _text({"event": "drop", "topic": held.topic.name, "incarnation": held.incarnation})


def importing(held: Registered, made: Import) -> bytes:
    said = {
        "event": "import", "topic": held.topic.name, "incarnation": held.incarnation, "import_id": made.import_id,
        "partitions": made.partitions, "form": made.form.value, "kafka_topic": made.kafka_topic,
        "kafka_id": made.kafka_id,
    }  # fmt: skip
    return _text(said)


def sealing(held: Registered, import_id: str, *, ends: tuple[int, ...], rows: tuple[int, ...]) -> bytes:
    said = {
        "event": "seal", "topic": held.topic.name, "incarnation": held.incarnation, "import_id": import_id,
        "ends": ends, "rows": rows,
    }  # fmt: skip
    return _text(said)


def restarting(held: Registered, restarts: Sequence[Restart]) -> bytes:
    said = {
        "event": "restart", "topic": held.topic.name, "incarnation": held.incarnation,
        "restarts": [asdict(each) for each in restarts],
    }  # fmt: skip
    return _text(said)


def _text(said: Mapping[str, object]) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
