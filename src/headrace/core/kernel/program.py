"""A view's computation as data: what the compiled kernel interprets. Pure; imports no numba.

The kernel compiles once per machine because a view is not code to it but a `Program`: columns (values an event brings),
edges (offsets from t at which windows begin and end) and outputs (a function of a column over a window), packed in one
int64 array. `Items` are the rows it works on, `core/kernel/state.py` says in which order.

Values are int64 words: integers, decimals in units, timestamps, booleans 0/1, codes of strings as they are; floats as
their IEEE bits (`numpy.ndarray.view("int64")`). Outputs come back the same way.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.core.aggregate import ORDERED, Function
from headrace.core.errors import DefinitionError

SEMANTICS: Final = 1  # part of every fingerprint; raised when a value of any definition changes (SEMANTICS 5.6)
COLUMNS_MAX: Final = 62  # valid bits of a row live in one word
EVENTS_BITS: Final = 23  # log2 of the default max_events

Words = npt.NDArray[np.int64]


class ColumnKind(enum.IntEnum):
    """NONE: only whether it is there counts (count(where=...))."""

    NONE = 0
    INT = 1
    FLOAT = 2


class Flag(enum.IntFlag):
    """What an item asks. QUERY is answered before INSERT takes effect; OVERLAY: the row is this query's request."""

    INSERT = 1
    QUERY = 2
    OVERLAY = 4
    UPDATE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """bits: every |value| < 2**bits is proven (INT). scale: of decimals. always: never null, no where. history: values
    that become known later (labels, late columns). compact: FLOAT whose |values| are declared <= 2**30."""

    kind: ColumnKind
    bits: int = 63
    scale: int = 0
    always: bool = False
    history: bool = False
    compact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A window as the kernel sees it: (t - delay - width, t - delay]. width None: lifetime. calendar: index of the pair
    of bounds that each query brings (low, high], for aligned windows; width and delay are then not read. overlaid:
    whether the request itself, at t, lies inside (delay 0; not for `complete`)."""

    width: int | None = None
    delay: int = 0
    calendar: int | None = None
    overlaid: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """function of columns[column] over spans[span]; column None: of the events. current: the request counts."""

    function: Function
    span: int
    column: int | None = None
    current: bool = True
    n: int = 1
    sample: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Rows in the order in which they take effect; n of them.

    key: int32, dense codes of the entity from 0 (two passes over one entity under different cuts are two codes).
    flags: uint8, of Flag. time: event time; of queries t; of updates the entry's. order, seq: the rest of the order key
    after time: `order` sorts the ids (the id itself if int64, else its rank), `seq` (source, partition, offset) packed
    as the caller likes, unique within a key. valid: bit c says columns[c] is not null. values: int64[rows, n], C order:
    one row a column, then low and high of each calendar span. out: int64, the output row of a query, -1 elsewhere.

    UPDATE: the entry (key, time, seq) gets from instant values[1] on the value values[2] in column values[0];
    values[3] bit 0: it is not null, bit 1: forget what the entry's column held before. An update of an entry that is
    not there does nothing. Needs at least four rows in `values`.
    """

    key: npt.NDArray[np.int32]
    flags: npt.NDArray[np.uint8]
    time: Words
    order: Words
    seq: Words
    valid: Words
    values: Words
    out: Words


# How `Program.code` is laid out: a header, then four tables.
HEADER_WORDS: Final = 22
(P_COLUMNS, P_PREFIXES, P_OUTPUTS, P_EDGES, P_SLOTS, P_LANES, P_PREFIX_WORDS, P_ROW, P_CALENDARS, P_DISTINCT) = range(
    10
)
(P_COLUMN_TABLE, P_PREFIX_TABLE, P_OUTPUT_TABLE, P_EDGE_TABLE, P_N_MAX, P_HISTORY, P_EXTREMA) = range(10, 17)
(P_ORDER, P_SEQ, P_VALID) = range(17, 20)  # lanes, -1 where the program has no use for them
(P_TAIL, P_NARROW) = range(20, 22)  # where a packed row's tail begins; whether runs of rows are answered at once
# A column: its kind; whether always there; its lanes (-1: none); its prefixes; its number among the extrema.
C_KIND, C_ALWAYS, C_RAW, C_HISTORY, C_COUNT, C_SUM, C_SQUARE, C_UNFIT, C_EXTREMA, C_SCALE = range(10)
COLUMN_FIELDS: Final = 10
# A prefix: running totals of one kind over one column, `words` wide, at `offset` in an entry's prefix words.
X_KIND, X_COLUMN, X_WORDS, X_OFFSET, X_UNIT = range(5)
PREFIX_FIELDS: Final = 5
PREFIX_COUNT, PREFIX_SUM, PREFIX_SQUARE, PREFIX_UNFIT = range(4)
# An output. Edges are indices into the edge table; LOW -1: from the beginning.
O_FUNCTION, O_COLUMN, O_LOW, O_HIGH, O_SLOT, O_CURRENT, O_N, O_SAMPLE = range(8)
OUTPUT_FIELDS: Final = 8
# An edge: kind 0, at t + value; kind 1, at the query's calendar word number `value`.
E_KIND, E_VALUE = range(2)
EDGE_FIELDS: Final = 2
EDGE_OFFSET, EDGE_CALENDAR = range(2)
# Lane 0 of every entry is its time; a row of a key's directory of chunks begins with these words, then come the totals
# of all prefixes before the chunk. Behind the directory's rows stand, for every column that is asked for them, all
# chunks' minima, then all their maxima: a question runs over thousands of them.
LANE_TIME: Final = 0
D_OFFSET, D_CAPACITY, D_LENGTH, D_BEFORE, D_FIRST = range(5)
DIRECTORY_FIXED: Final = 5
# Functions as the kernel numbers them: their place in the enum.
FUNCTIONS: Final = {function: number for number, function in enumerate(Function)}
F_COUNT: Final = FUNCTIONS[Function.COUNT]
F_SUM: Final = FUNCTIONS[Function.SUM]
F_MEAN: Final = FUNCTIONS[Function.MEAN]
F_MIN: Final = FUNCTIONS[Function.MIN]
F_MAX: Final = FUNCTIONS[Function.MAX]
F_VARIANCE: Final = FUNCTIONS[Function.VARIANCE]
F_DEVIATION: Final = FUNCTIONS[Function.DEVIATION]
F_FIRST: Final = FUNCTIONS[Function.FIRST]
F_LAST: Final = FUNCTIONS[Function.LAST]
F_LAST_N: Final = FUNCTIONS[Function.LAST_N]
F_DISTINCT: Final = FUNCTIONS[Function.DISTINCT]
F_RATE: Final = FUNCTIONS[Function.RATE]
F_SINCE_LAST: Final = FUNCTIONS[Function.SINCE_LAST]
F_SINCE_FIRST: Final = FUNCTIONS[Function.SINCE_FIRST]
F_LOOKUP: Final = FUNCTIONS[Function.LOOKUP]
# Fixed point of floats (see wide.py): 128 bits for values declared within 2**30, else 256; of squares always 256.
COMPACT_UNIT: Final = -74
WIDE_UNIT: Final = -128
COMPACT_SQUARE_UNIT: Final = -148

# A packed row begins with time, valid bits, and its flags with its output row; then come the values.
ROW_HEAD: Final = 3

_NARROW = frozenset({Function.COUNT, Function.SUM, Function.MEAN, Function.RATE})
_SUMMED = frozenset({Function.SUM, Function.MEAN, Function.VARIANCE, Function.DEVIATION, Function.RATE})
_SQUARED = frozenset({Function.VARIANCE, Function.DEVIATION})
_EXTREME = frozenset({Function.MIN, Function.MAX})
_READ_BACK = _EXTREME | ORDERED | {Function.DISTINCT}  # functions that read values, not only totals


@dataclass(frozen=True, slots=True)
class Program:
    """The arrays, and where outputs lie. Built once a view; `code` is all that the kernel reads.

    slots: words that a query's outputs take. slot[i], width[i]: where output i begins and how many words it has: 1; a
    SUM of INT 2 (128 bits, low word first); LAST_N n + 1 (how many, then the values, oldest first). calendars: spans
    that need bounds from the query. bytes_per_event: what a retained event costs, slack of half-filled chunks aside.
    """

    columns: tuple[Column, ...]
    spans: tuple[Span, ...]
    outputs: tuple[Output, ...]
    code: Words
    slots: int
    slot: tuple[int, ...]
    width: tuple[int, ...]
    calendars: int
    bytes_per_event: int
    max_events: int

    @property
    def value_rows(self) -> int:
        """How many rows `Items.values` has: columns, two bounds a calendar span, and at least four, for updates."""
        return _value_rows(len(self.columns), self.calendars)

    def without_history(self) -> Program:
        """The same outputs in the same slots where no item is an UPDATE: what only facts that come later need is left
        out."""
        if not self.code[P_HISTORY]:
            return self
        columns = tuple(replace(column, history=False) for column in self.columns)
        limits = {"max_events": self.max_events, "max_distinct": int(self.code[P_DISTINCT])}
        return build(columns, self.spans, self.outputs, **limits)

    @property
    def narrow(self) -> bool:
        """Whether every output is a difference of one-word totals, so that rows in order need no search each."""
        return bool(self.code[P_NARROW])


def _value_rows(columns: int, calendars: int) -> int:
    return max(columns + 2 * calendars, 4)


def build(
    columns: tuple[Column, ...],
    spans: tuple[Span, ...],
    outputs: tuple[Output, ...],
    *,
    max_events: int = 1 << EVENTS_BITS,
    max_distinct: int = 4_096,
) -> Program:
    """Assign lanes, prefixes and edges. Raises: DefinitionError HR-0501 where an exact sum cannot be proven to fit,
    HR-0502 for more columns than a row's valid bits hold."""
    if len(columns) > COLUMNS_MAX:
        raise DefinitionError(
            "HR-0502",
            f"a view of {len(columns)} distinct inputs",
            detail=f"expected at most {COLUMNS_MAX}",
            hint="split the view",
        )
    layout = _Layout(
        events_bits=max(max_events - 1, 1).bit_length(),
        ordered=any(o.function in ORDERED for o in outputs) or any(c.history for c in columns),
        nullable=any(not c.always or c.history for c in columns),
    )
    for index, column in enumerate(columns):
        layout.add_column(index, column, frozenset(o.function for o in outputs if o.column == index))
    edges = _Edges()
    bounds = [edges.of(span) for span in spans]
    rows, slot, width = [], [], []
    taken = 0
    for output in outputs:
        low, high = bounds[output.span]
        overlaid = output.current and spans[output.span].overlaid
        of = -1 if output.column is None else output.column
        rows.append([FUNCTIONS[output.function], of, low, high, taken, int(overlaid), output.n, int(output.sample)])
        slot.append(taken)
        width.append(_width(output, columns))
        taken += width[-1]
    calendars = sum(1 for span in spans if span.calendar is not None)
    tables = [layout.columns, layout.prefixes, rows, edges.rows]
    sizes = [COLUMN_FIELDS, PREFIX_FIELDS, OUTPUT_FIELDS, EDGE_FIELDS]
    starts = [HEADER_WORDS]
    for table, size in zip(tables, sizes, strict=True):
        starts.append(starts[-1] + len(table) * size)
    header = np.zeros(HEADER_WORDS, np.int64)
    header[:P_COLUMN_TABLE] = [
        len(columns),
        len(layout.prefixes),
        len(outputs),
        len(edges.rows),
        taken,
        layout.lanes,
        layout.prefix_words,
        DIRECTORY_FIXED + layout.prefix_words,
        calendars,
        max_distinct,
    ]
    header[P_COLUMN_TABLE : P_EDGE_TABLE + 1] = starts[:4]
    header[P_N_MAX] = max((o.n for o in outputs), default=1)
    header[P_HISTORY] = int(any(c.history for c in columns))
    header[P_EXTREMA] = layout.extrema
    header[P_ORDER : P_VALID + 1] = [layout.order, layout.seq, layout.valid]
    header[P_TAIL] = ROW_HEAD + _value_rows(len(columns), calendars)
    header[P_NARROW] = int(layout.order < 0 and calendars == 0 and layout.is_narrow(outputs))
    flat = [word for table in tables for row in table for word in row]
    code = np.concatenate([header, np.array(flat, np.int64)])
    per_event = 8 * (layout.lanes + layout.prefix_words)
    return Program(columns, spans, outputs, code, taken, tuple(slot), tuple(width), calendars, per_event, max_events)


def _width(output: Output, columns: tuple[Column, ...]) -> int:
    if output.function is Function.LAST_N:
        return output.n + 1
    wide = output.function is Function.SUM and columns[output.column or 0].kind is ColumnKind.INT
    return 2 if wide else 1


class _Edges:
    """Distinct instants at which windows begin and end; windows share them."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def of(self, span: Span) -> tuple[int, int]:
        if span.calendar is not None:
            return self._edge(EDGE_CALENDAR, 2 * span.calendar), self._edge(EDGE_CALENDAR, 2 * span.calendar + 1)
        low = -1 if span.width is None else self._edge(EDGE_OFFSET, -span.delay - span.width)
        return low, self._edge(EDGE_OFFSET, -span.delay)

    def _edge(self, kind: int, value: int) -> int:
        if [kind, value] not in self.rows:
            self.rows.append([kind, value])
        return self.rows.index([kind, value])


class _Layout:
    """Gives out an entry's lanes and prefix words, column by column."""

    def __init__(self, *, events_bits: int, ordered: bool, nullable: bool) -> None:
        self.events_bits = events_bits
        self.columns: list[list[int]] = []
        self.prefixes: list[list[int]] = []
        self.lanes = 1  # time
        self.order = self._lane() if ordered else -1
        self.seq = self._lane() if ordered else -1
        self.valid = self._lane() if nullable else -1
        self.prefix_words = 0
        self.extrema = 0

    def add_column(self, index: int, column: Column, asked: frozenset[Function]) -> None:
        row = [int(column.kind), int(column.always), -1, -1, -1, -1, -1, -1, -1, 10**column.scale]
        read_back = bool(asked & _READ_BACK) or column.history or column.kind is ColumnKind.FLOAT
        if column.kind is not ColumnKind.NONE and read_back:
            row[C_RAW] = self._lane()
        if column.history:
            row[C_HISTORY] = self._lane()
        if not column.always:
            row[C_COUNT] = self._prefix(PREFIX_COUNT, index, 1, 0)
        if asked & _SUMMED:
            words, unit = self._sum(column, 1)
            row[C_SUM] = self._prefix(PREFIX_SUM, index, words, unit)
        if asked & _SQUARED:
            words, unit = self._sum(column, 2)
            row[C_SQUARE] = self._prefix(PREFIX_SQUARE, index, words, unit)
        if asked & _SUMMED and column.kind is ColumnKind.FLOAT:
            row[C_UNFIT] = self._prefix(PREFIX_UNFIT, index, 1, 0)
        if asked & _EXTREME:
            row[C_EXTREMA] = self.extrema
            self.extrema += 1
        self.columns.append(row)

    def is_narrow(self, outputs: Iterable[Output]) -> bool:
        """See Program.narrow; asked when all columns have been added."""
        return all(o.function in _NARROW for o in outputs) and all(row[X_WORDS] == 1 for row in self.prefixes)

    def _sum(self, column: Column, power: int) -> tuple[int, int]:
        """Words and unit of an exact sum of values (power 1) or squares (2) over max_events events (SEMANTICS 3.2)."""
        if column.kind is ColumnKind.FLOAT:
            if power == 1:
                return (2, COMPACT_UNIT) if column.compact else (4, WIDE_UNIT)
            return 4, (COMPACT_SQUARE_UNIT if column.compact else WIDE_UNIT)
        bits = power * column.bits + self.events_bits + 1
        for words in (1, 2, 4):
            if bits <= 64 * words and words >= power:
                return words, 0
        raise DefinitionError(
            "HR-0501",
            f"an exact sum of {bits} bits cannot be held",
            detail="expected at most 256: the value's range times max_events",
            hint="declare the field's minimum and maximum, or a smaller max_events on the view",
        )

    def _lane(self) -> int:
        self.lanes += 1
        return self.lanes - 1

    def _prefix(self, kind: int, column: int, words: int, unit: int) -> int:
        self.prefixes.append([kind, column, words, self.prefix_words, unit])
        self.prefix_words += words
        return len(self.prefixes) - 1
