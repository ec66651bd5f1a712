"""How one event is a record's bytes: the plug that a topic's payload form chooses. Pure.

JSON stands behind it today, framed Avro and Protobuf fit the same way: a codec is made of a topic's definition, turns
rows into values and values into rows, and says of each value that is none why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.core.codec import Physical

Row = tuple[Physical, ...]


class Unreadable(NamedTuple):
    """A value that is no event of its topic. place: among those that were given. code: of the error that says why."""

    place: int
    code: str
    reason: str


class Decoded(NamedTuple):
    """rows: what could be read, the topic's fields in declared order. places: of each row, among the values given."""

    rows: pa.RecordBatch
    places: npt.NDArray[np.int64]
    unreadable: Sequence[Unreadable]


class EventCodec(ABC):
    """Of one definition of a topic, for live events or for an import's."""

    @abstractmethod
    def encode(self, rows: pa.RecordBatch | Sequence[Row]) -> list[bytes]:
        """A value for each row, in order. The rows are valid already."""

    @abstractmethod
    def decode(self, values: Sequence[bytes]) -> Decoded:
        """Rows in the order of their values. One that is no event of the topic harms no other."""

    @abstractmethod
    def check(self, batch: pa.RecordBatch) -> None:
        """Rows that came as Arrow, with the topic's fields and types: do they keep to its rules? Raises: SchemaError
        for the first that does not."""
