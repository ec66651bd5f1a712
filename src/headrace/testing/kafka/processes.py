"""The processes of nodes: found by their command line, started on a leash or for good, ended. Touches: /proc, signals,
processes. Linux only.

There is no file of process ids. A node's folder stands in its command line, so that what runs is read from the system,
and a number that the system gave to somebody else is never killed: who is signalled is held by a pidfd first, and
looked at again then.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.times import ZERO, Duration
from headrace.testing.kafka.define import KafkaClusterError
from headrace.testing.kafka.plan import marked_folder

_LAUNCHER = Path(__file__).with_name("launcher.py")
_KILL_PATIENCE = Duration.parse("30s")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProcess:
    """A node that runs. paused: a signal stopped it (SIGSTOP)."""

    pid: int
    paused: bool


def find(folder: Path) -> NodeProcess | None:
    """The process of the node in this folder, if it runs."""
    return found_under(folder).get(folder)


def found_under(folder: Path) -> dict[Path, NodeProcess]:
    """The processes of nodes in this folder and below, by the node's own folder. Milliseconds: reads all of /proc."""
    found = {}
    for pid in _pids():
        place = _folder_of(pid)
        if place is not None and place.is_relative_to(folder):
            found[place] = NodeProcess(pid=pid, paused=_status(pid) in ("T", "t"))
    return found


def start(command: Sequence[str], *, folder: Path, log: Path, leash: bool) -> subprocess.Popen[str]:
    """Run a command in `folder`, its output at the end of `log`; returns when it runs.

    leash: it ends when this process ends, however that ends. Returns its launcher: on a leash it ends after the
    command, with the command's exit status; else it has ended, and the command lives on without it.
    Raises: KafkaClusterError HR-0915.
    """
    mode = f"leash:{os.getpid()}" if leash else "detach"
    launcher = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_LAUNCHER), mode, str(log), str(folder), "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # An interrupt at the terminal is for whoever started it, and not for the nodes. A session of its own is for who
        # outlives the starter (launcher.py says what it costs).
        start_new_session=not leash,
        process_group=0 if leash else None,
    )
    assert launcher.stdout is not None and launcher.stderr is not None
    with launcher.stdout, launcher.stderr:
        said = launcher.stdout.readline()
        complaint = "" if said else launcher.stderr.read()
    if not leash or not said:
        launcher.wait()
    if not said:
        raise KafkaClusterError("HR-0915", f"no process could be started in {folder}", detail=complaint.strip()[-400:])
    return launcher


def send(folder: Path, number: signal.Signals) -> bool:
    """A signal to the node in this folder. False where none runs."""
    held = _hold(folder)
    if held is None:
        return False
    try:
        signal.pidfd_send_signal(held, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(held)
    return True


def end(folders: Sequence[Path], *, grace: Duration) -> list[Path]:
    """End nodes, in order for as long as `grace`, then by SIGKILL; without grace, and where a node is paused and hears
    nothing else, by SIGKILL at once. Returns the folders of those that were killed; none runs any more.

    Raises: KafkaClusterError HR-0915 where the system does not end one for half a minute.
    """
    held = {folder: one for folder in folders if (one := _hold(folder)) is not None}
    try:
        stopping = [] if grace == ZERO else [one for one in held if not _paused(one)]
        for folder in stopping:
            send(folder, signal.SIGTERM)
        left = _wait_ended({one: held[one] for one in stopping}, grace)
        killed = [one for one in held if one in left or one not in stopping]
        for folder in killed:
            send(folder, signal.SIGKILL)
        if stuck := _wait_ended({one: held[one] for one in killed}, _KILL_PATIENCE):
            raise KafkaClusterError("HR-0915", f"the node in {min(stuck)} does not end", detail="it was sent SIGKILL")
        return killed
    finally:
        for one in held.values():
            os.close(one)


def _hold(folder: Path) -> int | None:
    """A pidfd of the node in this folder; None where none runs."""
    process = find(folder)
    if process is None:
        return None
    try:
        held = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if _folder_of(process.pid) == folder:  # else it ended in between, and its number went to another
        return held
    os.close(held)
    return None


def _paused(folder: Path) -> bool:
    process = find(folder)
    return process is not None and process.paused


def _wait_ended(held: dict[Path, int], patience: Duration) -> set[Path]:
    """Those that still run when patience is over."""
    until = time.monotonic() + patience.micros / 1e6
    left = {pidfd: folder for folder, pidfd in held.items()}
    poll = select.poll()
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left and (rest := until - time.monotonic()) > 0:
        for pidfd, _ in poll.poll(rest * 1_000):
            poll.unregister(pidfd)
            del left[pidfd]
    return set(left.values())


def _pids() -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            yield int(entry.name)


def _folder_of(pid: int) -> Path | None:
    """The folder of the node that this process is; None where it is none, has ended, or is somebody else's."""
    place = Path(f"/proc/{pid}")
    try:
        if place.stat().st_uid != os.getuid():
            return None
        raw = (place / "cmdline").read_bytes()
    except OSError:
        return None
    folder = marked_folder([os.fsdecode(one) for one in raw.split(b"\0")[:-1]])
    return Path(folder) if folder else None


def _status(pid: int) -> str:
    """The letter that /proc says: R, S, T (stopped), Z. "" where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
