"""What a test needs of the machine. A lack skips the test and is said once, in one line, at the end of the run.

    requires("xgboost")            a Python package, at the top of a test or of a whole module
    requires_program("java")       a program on the PATH
    path = requires_data()         the handbook's transactions

Under HEADRACE_REQUIRE_ALL=1 every skip is a failure (tests/conftest.py), so that CI never passes by skipping. The
handbook's data is the exception, as CI may be without it: there only a folder that exists and lacks the file fails.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from headrace.plugs import EXTRAS
from scripts import handbook_data

PREFIX = "this machine lacks "
DATA = f"the handbook's transactions ({handbook_data.FILE}): name their folder in HEADRACE_DATA"


def requires(*packages: str) -> None:
    """Skip unless each package can be imported; nothing is imported here."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            extra = EXTRAS.get(package, "dev")
            lack(f"the package {package}: pip install 'headrace[{extra}]'")


def requires_program(*programs: str) -> None:
    """Skip unless each program is on the PATH."""
    for program in programs:
        if shutil.which(program) is None:
            lack(f"the program {program}")


def requires_data() -> Path:
    """The handbook's transactions, or skip."""
    found = handbook_data.find()
    if found is None:
        folders = [str(folder) for folder in handbook_data.folders()]
        lack(f"{handbook_data.FILE} in {', '.join(folders)}" if folders else DATA)
    return found


def lack(what: str) -> NoReturn:
    """Skip the test or the module, saying what is missing."""
    pytest.skip(PREFIX + what, allow_module_level=True)
