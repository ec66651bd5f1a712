"""The hash chain of decision records: each names the record before it, so that none can change unseen. Pure.

The one idea: a record's link is the hash of the link before it in its partition and of all its own fields, among them
the hash of the request it decided. Whoever alters, drops, inserts or moves a record would have to make every later link
anew, and the newest one (the head) is known elsewhere: to whoever asked for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from headrace.core.codec import Physical
from headrace.core.points import Partition

Row = tuple[Physical, ...]

_encode = msgspec.msgpack.Encoder().encode  # one form for one value: 1, 1.0 and true differ, a double is its 64 bits


def genesis(records: Partition) -> str:
    """What the first record of a partition names as the link before it."""
    return hashlib.sha256(_encode([records.topic, records.incarnation, records.index])).hexdigest()


def link(previous: str, fields: Sequence[Physical]) -> str:
    """A record's link. fields: all of its fields but the link itself, in the record topic's order. Cost: 3 us."""
    return hashlib.sha256(previous.encode() + _encode(fields)).hexdigest()


class RequestHash:
    """The hash of a request's row, whatever fields the topic gets later: null fields count for nothing."""

    __slots__ = ("_order",)

    def __init__(self, names: Sequence[str]) -> None:
        """names: of the row's fields, in order."""
        self._order = tuple(sorted((name, place) for place, name in enumerate(names)))

    def __call__(self, row: Sequence[Physical]) -> str:
        held = [(name, row[place]) for name, place in self._order if row[place] is not None]
        return hashlib.sha256(_encode(held)).hexdigest()
