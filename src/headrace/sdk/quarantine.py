"""What a group set aside: listed, shown, released. Touches the cluster.

    for each in quarantined("kafka://127.0.0.1:9092", payments, group="mailer"): ...
    release("kafka://127.0.0.1:9092", payments, group="mailer", key="c-17")

The one idea: a release is a record in the quarantine as everything else there; the consumer that has the partition
takes it up within seconds, or when one starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from headrace.clients.kafka.port import Record
from headrace.core.errors import NotFoundError, UsageError
from headrace.log.define import Topic
from headrace.sdk.connect import Connection, connect
from headrace.sdk.define import SetAside, group_name
from headrace.sdk.held import Fold, read_held
from headrace.sdk.keeper import Keeper
from headrace.sdk.port import Messages


def quarantined(
    cluster: str | Messages, topic: Topic, *, group: str, environ: Mapping[str, str] | None = None
) -> list[SetAside]:
    """All that the group has set aside and that was not handled since; by partition, in the order it was set aside.

    Raises: as `connect.connect`; UsageError HR-0435.
    """
    connection = connect(cluster, topic, environ=environ)
    try:
        return [each for _, _, found in _folded(connection, group) for each in found]
    finally:
        connection.close()


def show(
    cluster: str | Messages,
    topic: Topic,
    *,
    group: str,
    partition: int,
    offset: int,
    environ: Mapping[str, str] | None = None,
) -> SetAside:
    """One record by its place in its topic. Raises: NotFoundError HR-0443; as `quarantined`."""
    for each in quarantined(cluster, topic, group=group, environ=environ):
        if (each.partition, each.offset) == (partition, offset):
            return each
    raise NotFoundError("HR-0443", f"group {group!r} holds no record of {topic.name}/{partition} at offset {offset:,}")


def release(
    cluster: str | Messages,
    topic: Topic,
    *,
    group: str,
    key: str | int | None = None,
    partition: int | None = None,
    offset: int | None = None,
    everything: bool = False,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Give records back to the group's handler: all of a key, in order and before any newer one of it; or a single one
    by its place, with all of its key where it blocks one; or everything. Returns how many.

    Raises: NotFoundError HR-0443 where there is nothing to release, UsageError HR-0444, InputError HR-0445 (no key of
    this topic); as `quarantined`.
    """
    single = partition is not None and offset is not None
    if (key is not None) + single + everything != 1:
        raise UsageError("HR-0444", "what to release", detail="expected a key, or partition and offset, or everything")
    connection = connect(cluster, topic, environ=environ)
    try:
        wanted = None if key is None else connection.codec.key(key)
        count = 0
        for keeper, index, found in _folded(connection, group):
            chosen = [
                each
                for each in found
                if everything
                or (wanted is not None and each.key == wanted)
                or (single and (each.partition, each.offset) == (partition, offset))
            ]
            count += _release(keeper, index, chosen)
    finally:
        connection.close()
    if not count:
        what = f"of key {key!r}" if key is not None else "at this place" if single else "at all"
        raise NotFoundError(
            "HR-0443", f"group {group!r} holds nothing {what} of topic {topic.name!r}",
            hint="headrace quarantine list TOPIC --group GROUP",
        )  # fmt: skip
    return count


def _release(keeper: Keeper, partition: int, chosen: list[SetAside]) -> int:
    fold = keeper.folded(partition)
    count = 0
    for key in dict.fromkeys(each.key for each in chosen if each.place not in fold.alone):
        keeper.release(partition, key, None)
        count += len(fold.keys[key or b""])
    for each in chosen:
        if each.place in fold.alone:
            keeper.release(partition, each.key, each.place)
            count += 1
    return count


def _folded(connection: Connection, group: str) -> Iterator[tuple[Keeper, int, list[SetAside]]]:
    keeper = Keeper(connection, group_name(group))
    try:
        try:
            partitions = connection.messages.about(keeper.topic).partitions
        except NotFoundError:
            return  # a group that never ran has set nothing aside
        for index in range(partitions):
            fold = keeper.fold(index)
            records = keeper.read(index, fold.places())
            yield keeper, index, [_shown(fold, place, record) for place, record in sorted(records.items())]
    finally:
        keeper.close()


def _shown(fold: Fold, place: int, record: Record) -> SetAside:
    held = replace(read_held(record), released=fold.is_released(place))
    if place in fold.failures:
        failure, attempts = fold.failures[place]
        held = replace(held, failure=failure, attempts=attempts)
    return held
