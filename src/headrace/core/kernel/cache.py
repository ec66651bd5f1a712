"""Where compiled code is kept between processes. Touches: the folder, and the kernel's own sources to name it.

Numba's cache looks at the file of the function that is called, not at the files of those it calls: after a change
elsewhere it would run the old code. So the folder's name is the hash of all kernel sources and versions, and a change
anywhere is another folder. It is private: what lies in it is run.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import tempfile
from pathlib import Path

import llvmlite
import numba
import numpy

FOLDER_VARIABLE = "HEADRACE_CACHE_DIR"


def use_private_cache() -> Path | None:
    """Make numba keep compiled code in this kernel's own folder; None where the JIT is off. To be called before any
    function is decorated."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba sets it when it is imported
        return None
    folder = _private(_root() / f"kernel-{_name()}")
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # numba sets it when it is imported
    return folder


def _root() -> Path:
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def _name() -> str:
    """Of the sources, numba, LLVM, numpy, Python and the processor, whose instructions the code uses."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    versions = (numba.__version__, llvmlite.__version__, numpy.__version__, platform.python_version())
    digest.update("\0".join((*versions, platform.machine())).encode())
    return digest.hexdigest()[:20]


def _private(folder: Path) -> Path:
    """The folder, ours alone; a fresh one for this process where that cannot be had."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        private = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if private and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="headrace-kernel-"))
