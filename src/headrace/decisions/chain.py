"""The hash chain of decision records: each names the record before it, so that none can change unseen. Pure.

The one idea: a record's link is the hash of the link before it in its partition and of all its own fields, among them
the hash of the request it decided. Whoever alters, drops, inserts or moves a record would have to make every later link
anew, and the newest one (the head) is known elsewhere: to whoever asked for it.

A record's `chain` is its own link followed by the one before it, so that the first record that retention leaves can be
checked like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from headrace.core.codec import Physical
from headrace.core.points import Partition

Row = tuple[Physical, ...]

LINK_LENGTH = 64  # SHA-256 in hexadecimal digits

_encode = msgspec.msgpack.Encoder().encode  # one form for one value: 1, 1.0 and true differ, a double is its 64 bits


def genesis(records: Partition) -> str:
    """What the first record of a partition names as the link before it."""
    return hashlib.sha256(_encode([records.topic, records.incarnation, records.index])).hexdigest()


def link(previous: str, fields: Sequence[Physical]) -> str:
    """A record's `chain`. previous: that of the record before it, or `genesis`. fields: all of its fields but the chain
    itself, in the record topic's order. Cost: 3 us.

    Nulls at the end count for nothing, so a field that the topic gets later, put last, changes no link of before.
    """
    before, count = previous[:LINK_LENGTH], len(fields)
    while count and fields[count - 1] is None:
        count -= 1
    return hashlib.sha256(before.encode() + _encode(fields[:count])).hexdigest() + before


def own_link(chain: str) -> str:
    """The link of the record whose `chain` this is."""
    return chain[:LINK_LENGTH]


def link_before(chain: str) -> str:
    """The link of the record before it."""
    return chain[LINK_LENGTH:]


class RequestHash:
    """The hash of a request's row, whatever fields the topic gets later: null fields count for nothing."""

    __slots__ = ("_order",)

    def __init__(self, names: Sequence[str]) -> None:
        """names: of the row's fields, in order."""
        self._order = tuple(sorted((name, place) for place, name in enumerate(names)))

    def __call__(self, row: Sequence[Physical]) -> str:
        held = [(name, row[place]) for name, place in self._order if row[place] is not None]
        return hashlib.sha256(_encode(held)).hexdigest()
