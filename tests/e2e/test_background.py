"""What runs in the background of another process: behind it, and no longer than it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
import os, time
from headrace.cli.background import end_with, stand_back
end_with(os.getppid())
stand_back(7)
print(os.getpid(), os.nice(0), flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""


def test_it_stands_back_and_ends_with_its_parent_that_was_killed() -> None:
    before = os.nice(0)
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            pid, nice = map(int, parent.stdout.readline().split())
        finally:
            parent.kill()
    assert nice == min(before + 7, 19)
    deadline = time.monotonic() + 30
    while runs(pid):
        assert time.monotonic() < deadline, "it outlives its parent"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Not one that has ended, and that nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
