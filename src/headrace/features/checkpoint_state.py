"""A feature state as files, and back: arrays with no code in them. Pure.

The one idea: what the kernel holds is one array of integers, and what surrounds it (entities, codes of texts, retained
rows, facts) goes into Arrow; nothing is pickled. Which files there are follows from the views, so a checkpoint with
other files is one of other topics.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from headrace.core.kernel.program import Words
from headrace.core.kernel.state import KeyedState
from headrace.core.points import Partition
from headrace.features.checkpoint_store import Bytes, Part
from headrace.features.facts import FactJoin
from headrace.features.online import ViewState
from headrace.features.plan import ViewPlan
from headrace.features.retained import RetainedRows
from headrace.features.run import FeatureState
from headrace.log.define import Topic

PARTITION = "_partition"


class ReadSaid(msgspec.Struct, forbid_unknown_fields=True):
    """How far a partition was read."""

    topic: str
    incarnation: int
    index: int
    next: int
    available_at: int

    @property
    def partition(self) -> Partition:
        return Partition(self.topic, self.incarnation, self.index)


class ViewSaid(msgspec.Struct, forbid_unknown_fields=True):
    """fingerprint: of its meaning. program: hash of what the kernel runs."""

    fingerprint: str
    program: str
    oldest: int
    newest: int
    unindexed: int


class StateSaid(msgspec.Struct, forbid_unknown_fields=True):
    """What a manifest says of the state, beside its files."""

    views: dict[str, ViewSaid]
    frontier: list[ReadSaid]
    forgotten: dict[str, int]


class MakeState(Protocol):
    """`FeatureState`, or what makes one with a restriction of its own."""

    def __call__(
        self, plans: Sequence[ViewPlan], *, topics: Iterable[Topic], kernels: Mapping[str, KeyedState]
    ) -> FeatureState: ...


def said_of(state: FeatureState, fingerprints: Mapping[str, str]) -> StateSaid:
    """The state's counters and frontier. fingerprints: of every view's meaning."""
    return StateSaid(
        views={
            name: ViewSaid(
                fingerprint=fingerprints[name],
                program=program_hash(view.plan),
                oldest=view.oldest,
                newest=view.newest,
                unindexed=view.unindexed,
            )
            for name, view in state.views.items()
        },
        frontier=[
            ReadSaid(
                topic=p.topic, incarnation=p.incarnation, index=p.index, next=feed.next, available_at=feed.available_at
            )
            for p, feed in sorted(state.feeds.items())
        ],
        forgotten={name: topic.forgotten for name, topic in state.topic_states.items()},
    )


def files_of(state: FeatureState) -> Iterator[Part]:
    """The state's files, made one after the other; the state must not change meanwhile."""
    for name, view in state.views.items():
        yield f"{name}.kernel.npy", _npy(view.kernel.snapshot())
        yield f"{name}.keys.arrow", _arrow([_keys(view)])
        yield f"{name}.codes.arrow", _arrow([pa.record_batch([pa.array(view.plan.codes.texts, pa.string())], ["text"])])
    for name, topic in state.topic_states.items():
        if topic.retained is not None:
            yield f"{name}.retained.arrow", _arrow(_retained(topic.retained))
        if topic.facts is not None:
            for rule, join in topic.facts.joins.items():
                yield f"{name}.{rule}.facts.arrow", _arrow([_facts(join)])


def file_names(state: FeatureState) -> set[str]:
    """The files that `files_of` makes of such a state."""
    names = {f"{name}.{part}" for name in state.views for part in ("kernel.npy", "keys.arrow", "codes.arrow")}
    for name, topic in state.topic_states.items():
        if topic.retained is not None:
            names.add(f"{name}.retained.arrow")
        if topic.facts is not None:
            names.update(f"{name}.{rule}.facts.arrow" for rule in topic.facts.joins)
    return names


def state_from(
    plans: Sequence[ViewPlan],
    topics: Iterable[Topic],
    said: StateSaid,
    contents: Mapping[str, bytes],
    make: MakeState = FeatureState,
) -> FeatureState | None:
    """The state again; None where such a state would have other files.

    plans: fresh from `compile`; they are of this state from here on. contents: whole, by their hashes.
    Raises: StateError HR-0504 where the kernel's array has another format.
    """
    kernels = {}
    for plan in plans:
        if f"{plan.view.name}.kernel.npy" not in contents:
            return None
        for text in _batches(contents[f"{plan.view.name}.codes.arrow"])[0].column(0).to_pylist():
            plan.codes.code(text)
        words: Words = np.load(io.BytesIO(contents[f"{plan.view.name}.kernel.npy"]), allow_pickle=False)
        kernels[plan.view.name] = KeyedState.restore(plan.program, words)
    state = make(plans, topics=topics, kernels=kernels)
    if file_names(state) != contents.keys():
        return None
    for name, view_said in said.views.items():
        view = state.views[name]
        view.restored(oldest=view_said.oldest, newest=view_said.newest, unindexed=view_said.unindexed)
        _restore_keys(view, _batches(contents[f"{name}.keys.arrow"])[0])
    for name, topic in state.topic_states.items():
        topic.forgotten = said.forgotten.get(name, topic.forgotten)
        if topic.retained is not None:
            for batch in _batches(contents[f"{name}.retained.arrow"]):
                topic.retained.add_batch(batch.column(PARTITION)[0].as_py(), batch)
        if topic.facts is not None:
            for rule, join in topic.facts.joins.items():
                _restore_facts(join, _batches(contents[f"{name}.{rule}.facts.arrow"])[0])
    for read in said.frontier:
        state.resume(read.partition, read.next, read.available_at)
    return state


def bytes_hash(parts: Iterable[Bytes]) -> str:
    """64 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def program_hash(plan: ViewPlan) -> str:
    """Of what the kernel runs for a view."""
    return bytes_hash([plan.program.code.tobytes()])


# --- there ---


def _keys(view: ViewState) -> pa.RecordBatch:
    """A column a part of the entity, then the handles."""
    entities = list(view.keys)
    parts: list[Sequence[object]] = [entities]
    if len(view.plan.view.entity) > 1:
        # A composite entity is a tuple, which `Hashable` does not say.
        parts = [[entity[i] for entity in entities] for i in range(len(view.plan.view.entity))]  # type: ignore[index]
    columns = [pa.array(part) for part in parts]
    return pa.record_batch(
        [*columns, pa.array(view.keys.values(), pa.int64())], [*map(str, range(len(parts))), "handle"]
    )


def _retained(rows: RetainedRows) -> list[pa.RecordBatch]:
    return [
        batch.append_column(PARTITION, pa.array(np.full(batch.num_rows, partition, np.int64)))
        for partition, batch in rows.batches()
    ]


def _facts(join: FactJoin) -> pa.RecordBatch:
    held = list(join.facts())
    columns = [[origin for origin, _ in held], *([fact[i] for _, fact in held] for i in range(5))]
    return pa.record_batch(
        [pa.array(c) for c in columns], ["origin", "event_time", "id", "partition", "offset", "value"]
    )


def _npy(words: Words) -> list[Bytes]:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(words))
    return [head.getvalue(), words.data.cast("B")]


def _arrow(batches: Sequence[pa.RecordBatch]) -> list[Bytes]:
    """An Arrow IPC stream; of no batches an empty file."""
    if not batches:
        return [b""]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return [memoryview(sink.getvalue())]


# --- and back ---


def _restore_keys(view: ViewState, batch: pa.RecordBatch) -> None:
    *parts, handles = (column.to_pylist() for column in batch.columns)
    entities: Iterable[Hashable] = parts[0] if len(parts) == 1 else zip(*parts, strict=True)
    view.keys.update(zip(entities, handles, strict=True))


def _restore_facts(join: FactJoin, batch: pa.RecordBatch) -> None:
    for origin, time, id, partition, offset, value in zip(*(c.to_pylist() for c in batch.columns), strict=True):
        join.fact(origin, time, (id, partition, offset), value)


def _batches(body: bytes) -> list[pa.RecordBatch]:
    return list(pa.ipc.open_stream(body)) if body else []
