"""A request that is sent on to another process, and what came back. Frozen, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MARK = b"headrace-forwarded"  # by whom: a request that has it is not forwarded again


@dataclass(frozen=True, slots=True)
class Forward:
    """A request as it came, to be sent on."""

    path: str
    headers: Mapping[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Another process's answer."""

    status: int
    body: bytes
    content_type: bytes
    headers: tuple[tuple[bytes, bytes], ...]
