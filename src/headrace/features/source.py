"""What one topic brings to a view: whose events they are, and the words of the view's columns. Pure.

One source, two paths with the same answers: a batch through `core/columns.py`, a row through `core/evaluate.py`. Labels
and late columns are never read from the event: they come as `known`, because what is known of an event depends on the
point (SEMANTICS 4.1, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace.core.codec import Physical
from headrace.core.columns import evaluate_columns
from headrace.core.errors import StateError
from headrace.core.evaluate import Evaluate, compile_scalar
from headrace.core.expr import Expr, Named, Reference, Source, describe, references
from headrace.core.kernel.program import Column, ColumnKind, Words
from headrace.core.schema import DataType, Kind
from headrace.features.define import Label
from headrace.features.words import Booleans, Codes, float_word, words_of
from headrace.log.define import Topic

_Row = Sequence[Physical]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One column as a source fills it. value None: only whether `where` is true counts. so_far: what is not known yet
    counts as not so. ranged: its width stands on a declared range, which the definition may have narrowed since."""

    value: Expr | None
    where: Expr | None
    so_far: bool
    column: Column
    ranged: bool

    @property
    def parts(self) -> tuple[Expr, ...]:
        return tuple(part for part in (self.value, self.where) if part is not None)

    @property
    def late(self) -> bool:
        """Whether it reads a label or a late column."""
        return any(part.availability.late for part in self.parts)


class SourcePlan:
    """One topic as a source of a view. Made by `ViewPlan.compile`.

    index: its place among the view's sources. labels, late: what `known` is asked for, labels and names of late
    columns. history: the columns that read them. so_far: those of them that say known="so_far". fields: all that is
    read of the topic. Rows are tuples of physical values in declared order; a field that a batch lacks is null.
    """

    __slots__ = (
        "_bound", "_codes", "_computed", "_direct", "_entity", "_entity_parts", "_inputs", "_names", "_place", "_view",
        "fields", "history", "index", "labels", "late", "so_far", "topic",
    )  # fmt: skip

    def __init__(
        self,
        view: str,
        topic: Topic,
        index: int,
        entity: Sequence[Expr],
        inputs: Sequence[Input],
        labels: Mapping[str, Label],
        codes: Codes,
    ) -> None:
        read = [r for one in inputs for part in one.parts for r in references(part)]
        named = {r.name for r in read if r.source is Source.LABEL}
        late = {f.name for f in topic.late_columns}
        self._view = view
        self.topic = topic
        self.index = index
        self.labels = tuple(label for name, label in labels.items() if name in named)
        self.late = tuple(sorted({r.name for r in read if r.source is Source.FIELD and r.name in late}))
        self.history = tuple(c for c, one in enumerate(inputs) if one.late)
        self.so_far = tuple(c for c in self.history if inputs[c].so_far)
        whose = [r.name for part in entity for r in references(part)]
        self.fields = frozenset([*whose, *(r.name for r in read if r.source is Source.FIELD)])
        self._inputs = tuple(inputs)
        self._entity_parts = tuple(entity)
        self._codes = codes
        self._bound = any(one.column.always or one.ranged for one in inputs)
        self._place = {f.name: place for place, f in enumerate(topic.schema)}
        self._names = [f"{topic.name}.{f.name}" for f in topic.schema]
        self._names += [f"{topic.name}.{label.name}" for label in self.labels]
        self._entity = [self._compile(part) for part in entity]
        # Rows: where a column is a field as it stands, its place; else what computes its word.
        self._direct: list[tuple[int, int, int]] = []
        self._computed: list[tuple[int, int, bool, Callable[[_Row], int | None]]] = []
        for c, one in enumerate(inputs):
            place = self._plain(one)
            if place is not None:
                self._direct.append((1 << c, c, place))
            else:
                self._computed.append((1 << c, c, one.so_far and one.late, self._word(one)))

    # --- whose ---

    def entity(self, batch: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
        """The entity of each event; null where a part is null. Of a composite entity a struct array of the parts."""
        parts = self.entity_parts(batch)
        if len(parts) == 1:
            return parts[0]
        there = np.ones(batch.num_rows, np.bool_)
        for part in parts:
            if part.null_count:
                there &= part.is_valid().to_numpy(zero_copy_only=False)
        names = [str(i) for i in range(len(parts))]
        return pa.StructArray.from_arrays([_flat(part) for part in parts], names=names, mask=pa.array(~there))

    def entity_parts(self, batch: pa.RecordBatch | pa.Table) -> list[pa.Array | pa.ChunkedArray]:
        """Each part of the entity as a column."""
        return [self._column(part, batch, {}, so_far=False) for part in self._entity_parts]

    def entity_row(self, row: _Row) -> Hashable | None:
        """The entity of an event: a value, or a tuple of them where it is composite; None where a part is null."""
        if len(self._entity) == 1:
            return self._entity[0](row)
        parts = tuple(evaluate(row) for evaluate in self._entity)
        return None if None in parts else parts

    # --- what ---

    def columns(
        self, batch: pa.RecordBatch | pa.Table, known: Mapping[str, pa.Array], *, out: Words | None = None
    ) -> tuple[Words, Words]:
        """(valid int64[n], values int64[columns, n]) of a batch of n events.

        known: label or late column -> what is known of it, null or absent where nothing is: then a label counts as
        false if boolean, else null; a late column as null, or false where it is boolean and read so_far. out: filled
        and returned as the values, at least as many rows as columns; rows behind them are left alone.
        Raises: StateError HR-0510, HR-0511 where the log holds what today's definition of the topic excludes.
        """
        count = batch.num_rows
        values = np.zeros((len(self._inputs), count), np.int64) if out is None else out
        valid = np.full(count, (1 << len(self._inputs)) - 1, np.int64)
        done: dict[tuple[str, bool], pa.Array | pa.ChunkedArray] = {}

        def evaluated(part: Expr, so_far: bool) -> pa.Array:
            key = (describe(part), so_far)
            if key not in done:
                done[key] = self._column(part, batch, known, so_far=so_far)
            return done[key]

        for c, one in enumerate(self._inputs):
            there: Booleans | None = None
            if one.where is not None:
                there = _true(evaluated(one.where, one.so_far))
            if one.value is not None:
                chunk = evaluated(one.value, one.so_far)
                words, some = words_of(_flat(chunk), one.value.type, self._codes)
                there = some if there is None else there if some is None else there & some
                values[c, :count] = words if there is None else np.where(there, words, 0)
                self._check(c, one, values[c, :count], there)
            if there is not None:
                valid &= np.where(there, -1, ~(1 << c))
        return valid, values

    def columns_row(self, row: _Row, known: Mapping[str, Physical]) -> tuple[int, list[int]]:
        """(valid bits, values) of one event. known: as of `columns`, but a name there with None is known to be null."""
        values = [0] * len(self._inputs)
        valid = 0
        for bit, c, place in self._direct:
            value = row[place]
            if value is not None:
                valid |= bit
                values[c] = value  # type: ignore[assignment]  # an integer, by the field's type
        if self._computed:
            matured = self._known_row(row, known, so_far=False)
            so_far = self._known_row(row, known, so_far=True) if self.so_far else matured
            for bit, c, reads_so_far, word in self._computed:
                found = word(so_far if reads_so_far else matured)
                if found is not None:
                    valid |= bit
                    values[c] = found
        return valid, values

    # --- how ---

    def _column(
        self, part: Expr, batch: pa.RecordBatch | pa.Table, known: Mapping[str, pa.Array], *, so_far: bool
    ) -> pa.Array | pa.ChunkedArray:
        read = {r.path: self._read(r, batch, known, so_far=so_far) for r in references(part)}
        bare = part
        while isinstance(bare, Named):
            bare = bare.expr
        if isinstance(bare, Reference):
            return read[bare.path]
        return evaluate_columns(part, read, rows=batch.num_rows)

    def _read(
        self, reference: Reference, batch: pa.RecordBatch | pa.Table, known: Mapping[str, pa.Array], *, so_far: bool
    ) -> pa.Array | pa.ChunkedArray:
        label = reference.source is Source.LABEL
        if not label and reference.name not in self.late:
            place = batch.schema.get_field_index(reference.name)
            return pa.nulls(batch.num_rows, reference.type.arrow) if place < 0 else batch.column(place)
        array = known.get(reference.name)
        if array is None:
            array = pa.nulls(batch.num_rows, reference.type.arrow)
        not_so = reference.type.kind is Kind.BOOLEAN and (label or so_far)
        return array.fill_null(False) if not_so and array.null_count else array

    def _known_row(self, row: _Row, known: Mapping[str, Physical], *, so_far: bool) -> _Row:
        """The row with what is known in the late columns' places, and the labels behind."""
        if not self.late and not self.labels:
            return row
        seen = list(row)
        for name in self.late:
            unknown = False if so_far and self.topic.schema[name].type.kind is Kind.BOOLEAN else None
            seen[self._place[name]] = known.get(name, unknown)
        for label in self.labels:
            seen.append(known.get(label.name, False if label.type.kind is Kind.BOOLEAN else None))
        return seen

    def _plain(self, one: Input) -> int | None:
        """The place of the field that a column is, where its word is the physical value itself."""
        bare = one.value
        while isinstance(bare, Named):
            bare = bare.expr
        if one.where is not None or one.late or not isinstance(bare, Reference):
            return None
        if bare.type.kind in (Kind.INT64, Kind.DECIMAL, Kind.TIMESTAMP, Kind.DURATION):
            return self._place[bare.name]
        return None

    def _compile(self, part: Expr) -> Evaluate:
        return compile_scalar(part, self._names)

    def _word(self, one: Input) -> Callable[[_Row], int | None]:
        where = None if one.where is None else self._compile(one.where)
        if one.value is None:
            assert where is not None
            return lambda row: 0 if where(row) is True else None
        value, to_word = self._compile(one.value), _to_word(one.value.type, self._codes)

        def word(row: _Row) -> int | None:
            if where is not None and where(row) is not True:
                return None
            found = value(row)
            return None if found is None else to_word(found)

        return word

    def _check(self, c: int, one: Input, words: Words, there: Booleans | None) -> None:
        """What was proven of a column holds of what the log has. Rows that were validated by an older definition of the
        topic may not keep to today's, and a sum's width stands on it."""
        if not self._bound:
            return
        assert one.value is not None
        if one.column.always and there is not None:
            raise StateError(
                "HR-0510",
                f"view {self._view!r}: {describe(one.value)} is null in topic {self.topic.name!r}",
                detail="expected a value in every event; the field became required after these were written",
                hint="declare the field not required, or read hr.coalesce(field, ...)",
            )
        if one.ranged and len(words):
            low, high = int(words.min()), int(words.max())
            if one.column.kind is ColumnKind.INT and max(-low, high) >= 1 << one.column.bits:
                raise StateError(
                    "HR-0511",
                    f"view {self._view!r}: {describe(one.value)} leaves its declared range in {self.topic.name!r}",
                    detail=f"expected magnitudes below 2**{one.column.bits}, seen {low} to {high}",
                    hint="declare the minimum and maximum that the log's history keeps to",
                )


def _to_word(type: DataType, codes: Codes) -> Callable[[Physical], int]:
    match type.kind:
        case Kind.STRING:
            return codes.code  # type: ignore[return-value]  # a string, by the expression's type
        case Kind.FLOAT64:
            return float_word  # type: ignore[return-value]  # likewise a float
    return int  # type: ignore[return-value]  # likewise an integer or a boolean


def _flat(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(array, pa.ChunkedArray):
        return array
    return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()


def _true(array: pa.Array | pa.ChunkedArray) -> Booleans:
    """Where a predicate is true; null is false (SEMANTICS 3.5)."""
    flat = _flat(array)
    filled = flat.fill_null(False) if flat.null_count else flat
    mask: Booleans = filled.to_numpy(zero_copy_only=False)
    return mask
