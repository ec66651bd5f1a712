"""A command that runs in the background of a server. Touches: this process's place among others."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

LAST = 19  # the nicest that the system has
_LOOK_SECONDS = 1.0


def stand_back(nice: int = LAST) -> None:
    """What serves comes first: for the processors, where memory ends, and at the terminal. nice: how far it stands
    back; who stands back as far as can be gets nothing on a machine that is always busy."""
    os.nice(nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent ends it
    with contextlib.suppress(OSError):  # not on every system
        Path("/proc/self/oom_score_adj").write_text("900", encoding="ascii")


def end_with(parent: int) -> None:
    """End this process soon after its parent did, which may have been killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="headrace-parent", daemon=True).start()
