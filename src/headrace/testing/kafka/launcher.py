"""Starts a node's process so that it lives exactly as long as it should. Run as a file by itself, with only the
standard library: its one thread is what makes it right.

    python -I -S launcher.py detach LOG FOLDER -- COMMAND...       it outlives everybody; prints its pid, and ends
    python -I -S launcher.py leash:PID LOG FOLDER -- COMMAND...    it ends when the process PID ends, however that ends

On a leash this process stays, one a node: it waits for the end of PID by a pidfd, and then kills the node. The kernel's
own means (PR_SET_PDEATHSIG) fires when the *thread* that forked ends, which in a program with threads is not when the
program ends; here it holds between this process, which has one thread, and the node, so that a kill of this process
kills the node too. Linux only. Touches: two processes, the log file, descriptors that it was given.

Detached, the node has a session of its own; on a leash it stays in its starter's, in a process group of its own. Linux
shares processor time between sessions first, and under load kernel 6.18 was seen to give one of them nearly all: three
nodes with sessions of their own had 60 ms a second between them while those who asked them had two processors.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """The node's pid goes to stdout as soon as the command runs. On a leash: returns when the node has ended."""
    mode, log, folder, separator, *command = arguments
    assert separator == "--"
    starter = int(mode.removeprefix("leash:")) if mode.startswith("leash:") else 0
    watched = None
    if starter:
        watched = os.pidfd_open(starter)
        if os.getppid() != starter:
            return 1  # it ended before it could be watched, and its number may be another's by now
    parent = os.getpid()
    # Closed by the exec, so that the command line is the node's own when its pid is said; else it says what failed.
    failure, at_exec = os.pipe()
    node = os.fork()
    if node == 0:
        _become(command, log, folder, at_exec, leash_to=parent if starter else 0)
    os.close(at_exec)
    if why := os.read(failure, 4096):
        os.waitpid(node, 0)
        os.write(2, why)
        return 1
    os.write(1, f"{node}\n".encode())
    if watched is None:
        return 0
    # What this process holds would be held as long as it lives: its starter waits for the end of these.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    return _wait(node, watched)


def _become(command: list[str], log: str, folder: str, at_exec: int, *, leash_to: int) -> None:
    """Never returns."""
    if leash_to:
        os.setpgid(0, 0)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != leash_to:
            os._exit(1)
    else:
        os.setsid()
    what = log
    try:
        written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 0)
        os.dup2(written, 1)
        os.dup2(written, 2)
        what = folder
        os.chdir(folder)
        os.umask(0o077)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.putenv("LC_ALL", "C.UTF-8")  # else Java cannot open a path that is not ASCII
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        what = command[0]
        os.execv(command[0], command)
    except OSError as error:
        os.write(at_exec, os.fsencode(f"{what}: {error.strerror}\n"))
    finally:
        os._exit(127)


def _wait(node: int, watched: int) -> int:
    """Until the node ends, or the starter does, and the node with it. The node's exit status."""
    poll = select.poll()
    for one in (watched, os.pidfd_open(node)):
        poll.register(one, select.POLLIN)
    ended = [one for one, _ in poll.poll()]
    if watched in ended:
        os.kill(node, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(node, 0)[1]) & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
