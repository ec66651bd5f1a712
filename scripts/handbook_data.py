"""Where the handbook's transactions lie on this machine, if they do. Prints the file's path, or nothing.

They are never part of the repository. Looked for, in this order: $HEADRACE_DATA (a folder, or the file itself),
data/fdh in the checkout, data/fdh in a folder beside the checkout. Touches: the environment, the file system.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = "transactions.parquet"


def folders() -> Iterator[Path]:
    """The folders that are looked in and exist, in order."""
    named = os.environ.get("HEADRACE_DATA")
    beside = sorted(ROOT.parent.glob("*/data/fdh"))
    for folder in [*([Path(named)] if named else []), ROOT / "data" / "fdh", *beside]:
        if folder.exists():
            yield folder


def find() -> Path | None:
    """The file, or None where no folder holds it."""
    for folder in folders():
        file = folder if folder.is_file() else folder / FILE
        if file.is_file():
            return file
    return None


if __name__ == "__main__":
    found = find()
    if found is not None:
        print(found)
