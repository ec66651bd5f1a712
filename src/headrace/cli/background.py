"""A command that runs in the background of a server. Touches: this process's place among others."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def stand_back() -> None:
    """What serves comes first: for the processors, where memory ends, and at the terminal."""
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent ends it
    with contextlib.suppress(OSError):  # not on every system
        Path("/proc/self/oom_score_adj").write_text("900", encoding="ascii")
