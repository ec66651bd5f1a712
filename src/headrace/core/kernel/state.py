"""The kernel's two doors: `KeyedState`, which lives on and answers row by row, and `replay`, which starts from nothing.

The one idea: both are the same compiled insert and answer over the same chunks, so online and offline cannot differ.
Replay sorts rows by key (a counting sort, stable), then runs each key through a small slab that stays in the cache.
"""

from __future__ import annotations

import concurrent.futures
import mmap
import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.aggregate import Reason
from headrace.core.errors import StateError
from headrace.core.kernel.compiling import direct
from headrace.core.kernel.door import pack, work
from headrace.core.kernel.hidden import before
from headrace.core.kernel.memory import NO_OCTETS, NO_WORDS, frame, place
from headrace.core.kernel.program import (
    D_CAPACITY,
    D_FIRST,
    D_LENGTH,
    D_OFFSET,
    P_ORDER,
    P_ROW,
    P_SEQ,
    Flag,
    Items,
    Program,
    Words,
)
from headrace.core.kernel.slab import (
    K_CHUNKS,
    K_DIRECTORY,
    R_META,
    R_TIME,
    R_VALID,
    R_VALUES,
    ROW_TAIL,
    S_CAPACITY,
    S_HORIZON,
    S_USED,
    T_HANDLE,
    T_ORDER,
    T_SEQ,
)

STATE_BYTES_MAX = 1 << 36  # address space that an online state reserves, not memory: pages are taken when first touched
_NORESERVE = 0x4000  # Linux: MAP_NORESERVE, which the mmap module does not name
_FORMAT = 2
# As numbers: operations on enum members cost more than the kernel's whole work.
_INSERT, _UPDATE = int(Flag.INSERT), int(Flag.UPDATE)
_QUERY, _OVERLAID = int(Flag.QUERY), int(Flag.QUERY | Flag.OVERLAY)


def replay(
    program: Program, items: Items, *, keys: int, outs: int, threads: int = 1
) -> tuple[Words, npt.NDArray[np.uint8]]:
    """Every query's outputs, from nothing: (int64[outs, program.slots], uint8[outs, len(program.outputs)]).

    items: in the order in which they take effect, see Items; keys: one more than the highest code. An output row that
    no item names is 0 with the reason EMPTY. Cost: O(n) but for late rows; 8 * (7 + value rows) bytes a row on top.
    Raises: StateError HR-0503 where one key does not fit into memory.
    """
    out = np.zeros((outs, program.slots), np.int64)
    reasons = _reasons(program, items, outs)
    if len(items.key) == 0:
        return out, reasons
    if not (items.flags & _UPDATE).any():
        program = program.without_history()
    with np.errstate(over="ignore"):
        starts = np.zeros(keys + 1, np.int64)
        np.cumsum(np.bincount(items.key, minlength=keys), out=starts[1:])
        packed, width = _packed(program, items, starts)
        parts = _even_parts(starts, threads)
        if len(parts) == 1:
            _replay_part(program, packed, starts, width, parts[0], out, reasons)
        else:
            with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
                jobs = [pool.submit(_replay_part, program, packed, starts, width, p, out, reasons) for p in parts]
                for job in jobs:
                    job.result()
    return out, reasons


def _reasons(program: Program, items: Items, outs: int) -> npt.NDArray[np.uint8]:
    """VALUE where an item will answer, EMPTY elsewhere."""
    asked = items.out[(items.flags & int(Flag.QUERY)) != 0] if (items.flags & _QUERY == 0).any() else items.out
    shape = (outs, len(program.outputs))
    if len(asked) == outs:
        return np.zeros(shape, np.uint8)
    reasons = np.full(shape, int(Reason.EMPTY), np.uint8)
    reasons[asked] = int(Reason.VALUE)
    return reasons


def _packed(program: Program, items: Items, starts: Words) -> tuple[Words, int]:
    """The rows grouped by key, in one array, and how many words each takes."""
    rows = len(program.columns) if program.narrow else program.value_rows
    columns = [items.time, items.valid, *items.values[:rows]]
    if not program.narrow:
        columns += [items.order, items.seq]
    columns = [np.ascontiguousarray(column, np.int64) for column in columns]
    width = R_VALUES + rows + (0 if program.narrow else ROW_TAIL)
    packed = np.empty(len(items.key) * width, np.int64)
    key = np.ascontiguousarray(items.key, np.int32)
    flags = np.ascontiguousarray(items.flags, np.uint8)
    out = np.ascontiguousarray(items.out, np.int64)
    cursor = starts[:-1].copy()
    arrays = (place(key), place(flags), place(out), place(packed), place(cursor))
    words = frame(*arrays, width, len(key), len(columns), *(place(column) for column in columns))
    pack(place(words))
    return packed, width


def _even_parts(starts: Words, parts: int) -> list[tuple[int, int]]:
    """Ranges of keys with about as many rows each."""
    wanted = np.arange(1, parts) * int(starts[-1]) // parts
    cuts = [0, *np.searchsorted(starts, wanted).tolist(), len(starts) - 1]
    return list(zip(cuts[:-1], cuts[1:], strict=True))


def _replay_part(
    program: Program,
    packed: Words,
    starts: Words,
    width: int,
    part: tuple[int, int],
    out: Words,
    reasons: npt.NDArray[np.uint8],
) -> None:
    capacity = 1 << 16
    key, last = part
    while key < last:
        slab = np.empty(capacity, np.int64)
        key = _work(program.code, slab, capacity, packed, starts, width, key, last, out, reasons)
        capacity *= 4  # the key did not fit: it starts again in more room
        if capacity > STATE_BYTES_MAX // 8:
            raise StateError("HR-0503", "one key's events do not fit into memory", detail=f"{capacity * 8} bytes")


def _work(
    code: Words,
    slab: Words,
    capacity: int,
    packed: Words,
    starts: Words,
    width: int,
    first: int,
    last: int,
    out: Words,
    reasons: npt.NDArray[np.uint8],
) -> int:
    """The door, with a frame of its own."""
    arrays = place(packed.reshape(-1)), place(starts), place(out.reshape(-1)), place(reasons.reshape(-1))
    words = frame(place(code), place(slab), capacity, arrays[0], arrays[1], width, first, last, arrays[2], arrays[3])
    return int(work(place(words)))


@dataclass(frozen=True, slots=True)
class Usage:
    """What an online state holds. bytes_used: memory taken so far; freed chunks are used again before it grows."""

    bytes_used: int
    keys: int


class KeyedState:
    """Feature state of many keys, in one array. One thread at a time.

    Handles are what `key()` gave; `empty` is a key that never holds an event, for entities not seen yet.
    """

    def __init__(self, program: Program, *, bytes_max: int = STATE_BYTES_MAX) -> None:
        self.program = program
        self._slab = _reserve(bytes_max)
        self._slab_at = place(self._slab)
        self._code_at = place(program.code)
        self._width = R_VALUES + program.value_rows + ROW_TAIL
        self._row = np.zeros(self._width, np.int64)
        self._row_at = place(self._row)
        self._bytes = self._row.data.cast("B")
        # A row with so many values. Packing costs a third of assigning to a slice.
        rows = program.value_rows
        layouts = (f"={R_VALUES + n}q{8 * (rows - n)}x{ROW_TAIL}q" for n in range(rows + 1))
        self._packers = [struct.Struct(layout).pack_into for layout in layouts]
        self._out = np.zeros(max(program.slots, 1), np.int64)
        self._out_at = place(self._out)
        self._reasons = np.zeros(max(len(program.outputs), 1), np.uint8)
        self._reasons_at = place(self._reasons)
        self._words = self._out.data.cast("B")
        self._call(capacity=len(self._slab), width=self._width, last=0)
        self._frame = self._frame_of(capacity=0, width=self._width, last=1)
        self._frame_at = place(self._frame)
        self._enter = direct(work)
        self._head = int(self._slab[S_USED])
        self.empty = self._new_key()
        self._keys = 1

    def key(self) -> int:
        """A handle for a new key."""
        self._keys += 1
        return self._new_key()

    def _new_key(self) -> int:
        handle = self._call(capacity=0, width=0, last=0)
        if handle < 0:
            raise self._full()
        return handle

    def _call(self, *, capacity: int, width: int, last: int) -> int:
        words = self._frame_of(capacity=capacity, width=width, last=last)
        return int(work(place(words)))

    def _frame_of(self, *, capacity: int, width: int, last: int) -> Words:
        row, out, reasons = self._row_at, self._out_at, self._reasons_at
        return frame(self._code_at, self._slab_at, capacity, row, row, width, 0, last, out, reasons)

    def insert(self, key: int, time: int, order: int, seq: int, valid: int, values: Sequence[int]) -> None:
        """One event. values: a word a column."""
        self._do(_INSERT, key, time, order, seq, valid, values)

    def update(
        self,
        key: int,
        time: int,
        seq: int,
        column: int,
        known_from: int,
        value: int,
        *,
        valid: bool,
        reset: bool = False,
    ) -> None:
        """An entry's column gets a value that is known from an instant on, see Items; nothing if there is none."""
        change = (column, known_from, value, int(valid) | (2 if reset else 0))
        self._do(_UPDATE, key, time, 0, seq, 0, change)

    def answer(
        self, key: int, t: int, order: int, seq: int, overlay: bool, valid: int, values: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """(words of all outputs, a Reason an output) at t. values: columns (read with overlay only), then bounds."""
        self._do(_OVERLAID if overlay else _QUERY, key, t, order, seq, valid, values)
        return self._out.tolist(), self._reasons.tolist()

    def answer_bytes(
        self, key: int, t: int, order: int, seq: int, overlay: bool, valid: int, values: Sequence[int]
    ) -> tuple[memoryview, bytes]:
        """`answer` as it lies in memory: the words' bytes, good until the next call, and a byte a reason."""
        self._do(_OVERLAID if overlay else _QUERY, key, t, order, seq, valid, values)
        return self._words, self._reasons.tobytes()

    def _do(self, flags: int, key: int, time: int, order: int, seq: int, valid: int, values: Sequence[int]) -> None:
        """One row through the door."""
        self._packers[len(values)](self._bytes, 0, time, valid, flags, *values, order, seq, key)
        if self._enter(self._frame_at) < 1:
            raise self._full()

    def before(self, key: int, time: int) -> AbstractContextManager[int]:
        """The key as if it held nothing at `time` or later, within the context; what is inserted into it there is gone
        afterwards. Gives how many entries at exactly `time` that hides. Only `insert` and `answer` of this key
        meanwhile. Not for programs whose facts come later. Cost: some 30 us and copying at most two chunks."""
        return before(self.program.code, self._slab, key, time, head=self._head)

    def ties(self, key: int, time: int) -> list[tuple[int, int]]:
        """(order, seq) of the key's events at this instant, in order; kept for order-dependent outputs only."""
        code, slab = self.program.code, self._slab
        if code[P_ORDER] < 0:
            return []
        row, directory, chunks = int(code[P_ROW]), int(slab[key + K_DIRECTORY]), int(slab[key + K_CHUNKS])
        firsts = slab[directory + D_FIRST : directory + chunks * row : row]
        chunk = max(int(np.searchsorted(firsts, time)) - 1, 0)
        found: list[tuple[int, int]] = []
        for entry in range(directory + chunk * row, directory + chunks * row, row):
            times, capacity = int(slab[entry + D_OFFSET]), int(slab[entry + D_CAPACITY])
            length = int(slab[entry + D_LENGTH])
            index = int(np.searchsorted(slab[times : times + length], time))
            for at in range(times + index, times + length):
                if slab[at] != time:
                    return found
                found.append((int(slab[at + code[P_ORDER] * capacity]), int(slab[at + code[P_SEQ] * capacity])))
        return found

    def apply(self, items: Items) -> None:
        """Many inserts and updates in order; items.key holds handles, int64. Queries are not answered here."""
        count, rows = len(items.key), items.values.shape[0]
        width = R_VALUES + rows + ROW_TAIL
        packed = np.empty((count, width), np.int64)
        packed[:, R_TIME], packed[:, R_VALID] = items.time, items.valid
        packed[:, R_META] = items.flags & int(Flag.INSERT | Flag.UPDATE)
        packed[:, R_VALUES : R_VALUES + rows] = items.values.T
        tail = R_VALUES + rows
        packed[:, tail + T_ORDER], packed[:, tail + T_SEQ] = items.order, items.seq
        packed[:, tail + T_HANDLE] = items.key
        with np.errstate(over="ignore"):
            done = _work(self.program.code, self._slab, 0, packed, NO_WORDS, width, 0, count, NO_WORDS, NO_OCTETS)
        if done < count:
            raise self._full()

    def expire(self, before: int) -> None:
        """Events before this instant may be forgotten, when their memory is wanted; it never moves back."""
        self._slab[S_HORIZON] = max(int(self._slab[S_HORIZON]), before)

    def usage(self) -> Usage:
        return Usage(int(self._slab[S_USED]) * 8, self._keys)

    def snapshot(self) -> Words:
        """All of it as one int64 array; a copy."""
        used = int(self._slab[S_USED])
        return np.concatenate([np.array([_FORMAT, self._keys, self.empty], np.int64), self._slab[:used]])

    @classmethod
    def restore(cls, program: Program, words: Words, *, bytes_max: int = STATE_BYTES_MAX) -> KeyedState:
        """From a snapshot of a state with an equal program. Raises: StateError HR-0504 for another format."""
        if len(words) < 4 or int(words[0]) != _FORMAT or int(words[3 + S_USED]) != len(words) - 3:
            raise StateError(
                "HR-0504",
                "a kernel snapshot is not what was written",
                hint="delete the checkpoint; it is rebuilt from the log",
            )
        state = cls(program, bytes_max=bytes_max)
        capacity = int(state._slab[S_CAPACITY])
        state._slab[: len(words) - 3] = words[3:]
        state._slab[S_CAPACITY] = capacity
        state._keys = int(words[1])
        state.empty = int(words[2])
        return state

    def _full(self) -> StateError:
        return StateError(
            "HR-0503",
            "the feature state is full",
            detail=f"{int(self._slab[S_USED]) * 8} bytes of {len(self._slab) * 8}",
            hint="serve fewer keys per process, or shorter windows",
        )


def _reserve(bytes_max: int) -> Words:
    """Zeroed words that take memory only where touched, so that growing never copies (a copy would be a pause)."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    return np.frombuffer(mmap.mmap(-1, bytes_max, flags=flags), np.int64)
