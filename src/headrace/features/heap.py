"""Memory that was freed, handed back to the system. Touches the C library's heap.

The C library keeps what is freed of blocks below 32 MB, and a replay of some million rows is prepared in columns of
half that: a tenth of a training set's peak was memory that nobody used. Giving it back before the kernel takes its own
costs no time that could be measured.
"""

from __future__ import annotations

import ctypes

ROWS_MIN = 1 << 18  # of fewer rows the columns are small, and the heap uses them again


def hand_back() -> None:
    """Nothing where the C library has no way to say it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
