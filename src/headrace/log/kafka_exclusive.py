"""The writer by a name, over a Kafka cluster: one transactional id, one group.

The one idea: the broker knows who was made last by a transactional id and refuses everyone else, and the group's
offsets lie in the same transaction as what was made of the records below them. So how far a name has got is asked after
the older ones were fenced, and is true from then on (docs/KAFKA.md K2). A successor with the same id ends what was left
open; with another id it would wait for the broker's timeout. Touches the cluster through its client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from headrace.clients.kafka.port import GroupOffset, Outgoing, Place, Sender
from headrace.core.errors import FencedError, HeadraceError, LogError, UsageError
from headrace.core.points import IMPORTS_FROM, Cut
from headrace.log.kafka_derived import outgoing_derived, unbound
from headrace.log.kafka_following import Following
from headrace.log.kafka_registry import Registered
from headrace.log.kafka_rows import outgoing, versioning
from headrace.log.port import Append, Exclusive


class KafkaExclusive(Exclusive):
    """One thread at a time."""

    def __init__(
        self,
        sender: Sender,
        following: Following,
        *,
        name: str,
        group: str,
        committed: Callable[[str], Cut],
        offsets: Callable[[Cut], Mapping[Place, GroupOffset]],
    ) -> None:
        """sender: with the transactional id, made now. group: the name's, as the cluster has it. committed, offsets: of
        the log."""
        self._sender = sender
        self._following = following
        self._name = name
        self._group = group
        self._committed = committed
        self._offsets = offsets
        self._said: dict[Place, int] = {}  # the version that was put in force, where that is not the first

    def cut(self) -> Cut:
        return self._committed(self._name)

    def append(self, appends: Sequence[Append], *, cut: Cut) -> None:
        records: list[Outgoing] = []
        for append in appends:
            records += self._records(append)
        offsets = self._offsets(cut)
        try:
            self._sender.begin()
            if records:
                self._sender.send(records)
            self._sender.commit(group=self._group, offsets=offsets)
        except HeadraceError as error:
            self._said.clear()
            self._failed(error)
            raise

    def _failed(self, error: HeadraceError) -> None:
        """What can be given up is, so that nobody waits for it; all else is over."""
        if error.code in ("HR-0343", "HR-0345"):
            try:
                self._sender.abort()
            except FencedError as fenced:
                self._sender.close()
                raise fenced from error
            except LogError:
                self._sender.close()  # whoever makes this name next ends it
            return
        self._sender.close()

    def _records(self, append: Append) -> Sequence[Outgoing]:
        held = self._following.find(append.partition)
        if append.partition.index >= IMPORTS_FROM or append.at is not None or append.begins is not None:
            raise UsageError(
                "HR-0314", f"{append.partition}: an exclusive writer appends to live partitions, at their end"
            )
        place = self._following.place(held, append.partition.index)
        topic, inherited = held.topic, append.inherited
        if (topic.derivation is None) != (inherited is None):
            raise UsageError("HR-0314", f"{append.partition}: rows of a derived topic say what they inherit, no others")
        if inherited is None:
            codec = self._following.codec(topic, live=True)
            return outgoing(topic, codec, place, append.rows, request=append.request).records
        if not isinstance(append.rows, pa.RecordBatch):
            raise UsageError("HR-0314", f"{append.partition}: rows of a derived topic are a batch")
        codec = self._following.codec(unbound(topic), live=False)
        return self._in_force(held, place) + outgoing_derived(topic, codec, place, append.rows, inherited)

    def _in_force(self, held: Registered, place: Place) -> list[Outgoing]:
        """Before the first row of a newer definition: that it is in force. Said twice, it changes nothing."""
        if held.version == held.first_version(place.partition) or self._said.get(place) == held.version:
            return []
        self._said[place] = held.version
        return [versioning(place, held.version)]

    def close(self) -> None:
        self._sender.close()
