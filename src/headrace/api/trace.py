"""W3C trace context: a caller's trace goes on in our log line and our answer. Touches: the system's randomness."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z").match


@dataclass(frozen=True, slots=True)
class Trace:
    """trace, parent: the caller's. span: ours. All hexadecimal."""

    trace: str
    parent: str
    span: str
    flags: str

    @property
    def header(self) -> bytes:
        return f"00-{self.trace}-{self.span}-{self.flags}".encode()


def trace_of(header: bytes | None) -> Trace | None:
    """The trace of a `traceparent`; None where there is none, or none that the standard allows."""
    if header is None:
        return None
    found = _PARENT(header)
    if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
        return None
    if found[2] == b"0" * 32 or found[3] == b"0" * 16:
        return None
    return Trace(found[2].decode(), found[3].decode(), secrets.token_hex(8), found[4].decode())
