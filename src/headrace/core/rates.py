"""Bytes a second, said in words: "5MB/s". Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from headrace.core.errors import DefinitionError

_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_TEXT = re.compile(r"(\d+)\s*(B|kB|MB|GB|KiB|MiB|GiB)/s\Z")


@dataclass(frozen=True, slots=True, order=True)
class Rate:
    """Whole bytes a second, more than none."""

    bytes_per_second: int

    @classmethod
    def parse(cls, text: str | Rate) -> Rate:
        """From "5MB/s", "512KiB/s" (units B, kB, MB, GB of 1,000; KiB, MiB, GiB of 1,024). Raises: DefinitionError
        HR-0810."""
        if isinstance(text, Rate):
            return text
        match = _TEXT.match(text) if isinstance(text, str) else None
        if match is not None and int(match[1]) > 0:
            return cls(int(match[1]) * _UNITS[match[2]])
        raise DefinitionError(
            "HR-0810", f"not a rate: {text!r}", detail="expected a number above 0 and a unit, as in '5MB/s', '512KiB/s'"
        )

    def __str__(self) -> str:
        """In the largest unit that leaves a whole number."""
        fits = [(size, unit) for unit, size in _UNITS.items() if self.bytes_per_second % size == 0]
        size, unit = max(fits)
        return f"{self.bytes_per_second // size}{unit}/s"
