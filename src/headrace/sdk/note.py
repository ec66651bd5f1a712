"""What stands beside a group's committed offset: which topic it is of, and what is done above it. Pure.

The one idea: events of a key wait for each other, others do not, so above the committed offset some are done. Without
this note they would be handled again after a restart. Kafka keeps 4,096 bytes with an offset; what does not fit in is
handled again, which is allowed.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

MARK = "headrace1"
NOTE_BYTES_MAX = 4_000  # of the broker's offset.metadata.max.bytes, 4,096 by default
_RUNS_MAX = 4_000  # beyond, compression would take longer than it saves


def write_note(topic_id: str, offset: int, beyond: Iterable[int]) -> str:
    """beyond: offsets that are done, in order; those below `offset` are left out."""
    runs: list[int] = []  # how many are not done, how many are, ...; from `offset` on
    at = offset
    for each in beyond:
        if each < at:
            continue
        if each == at and runs:
            runs[-1] += 1
        else:
            runs += [each - at, 1]
        at = each + 1
        if len(runs) >= _RUNS_MAX:
            break
    while runs:
        packed = base64.b85encode(zlib.compress(b"".join(map(_varint, runs)), 1)).decode()
        note = f"{MARK} {topic_id} {packed}"
        if len(note) <= NOTE_BYTES_MAX:
            return note
        runs = runs[: len(runs) // 4 * 2]
    return f"{MARK} {topic_id}"


def read_note(note: str, offset: int) -> tuple[str, frozenset[int]]:
    """The topic's id and the offsets above `offset` that are done; "" and none of a note that is not ours."""
    parts = note.split(" ")
    if parts[0] != MARK or len(parts) not in (2, 3):
        return "", frozenset()
    done: set[int] = set()
    try:
        runs = _numbers(zlib.decompress(base64.b85decode(parts[2]))) if len(parts) == 3 else []
    except (ValueError, zlib.error):
        return parts[1], frozenset()
    at = offset
    for gap, count in zip(runs[::2], runs[1::2], strict=False):
        done.update(range(at + gap, at + gap + count))
        at += gap + count
    return parts[1], frozenset(done)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _numbers(data: bytes) -> list[int]:
    numbers, number, shift = [], 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(number)
            number, shift = 0, 0
    return numbers
