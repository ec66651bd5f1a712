"""Definitions from a folder, and the catalog in the log. Touches: the project's files, `sys.path` while it loads them.

A project declares in `definitions.py`, or in the modules of a folder `definitions/`: plain Python that imports
headrace.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from headrace.core.errors import DefinitionError, HeadraceError, NotFoundError


def load_definitions(folder: Path, kinds: tuple[type, ...]) -> list[object]:
    """Every object of these classes at the top level of the project's definition files, once each, in their order.

    Raises: NotFoundError HR-0804 where the folder declares nothing; DefinitionError HR-0805 with file and line where a
    file does not load; the definitions' own errors as they are.
    """
    files = _files(folder)
    found: dict[int, object] = {}
    with _importable(folder):
        for path in files:
            for value in vars(_load(folder, path)).values():
                if isinstance(value, kinds):
                    found[id(value)] = value
    return list(found.values())


def _files(folder: Path) -> list[Path]:
    single, many = folder / "definitions.py", folder / "definitions"
    if single.is_file():
        return [single]
    files = sorted(p for p in many.glob("*.py") if not p.name.startswith("_")) if many.is_dir() else []
    if not files:
        raise NotFoundError(
            "HR-0804",
            f"project {str(folder)!r} declares nothing",
            detail="expected definitions.py, or modules in a folder definitions/",
            hint="headrace init makes a project to start from",
        )
    return files


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Definition files may import each other; modules of another project with the same names are forgotten first."""
    root = str(folder.resolve())
    names = [name for name in sys.modules if name == "definitions" or name.startswith("definitions.")]
    for name in names:
        del sys.modules[name]
    many = folder / "definitions"
    if many.is_dir() and not (folder / "definitions.py").is_file() and not (many / "__init__.py").is_file():
        # A folder alone would give way to a definitions.py anywhere else on the path.
        package = sys.modules["definitions"] = ModuleType("definitions")
        package.__path__ = [str(many)]
    sys.path.insert(0, root)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(root)


def _load(folder: Path, path: Path) -> ModuleType:
    name = "definitions" if path.parent == folder else f"definitions.{path.stem}"
    try:
        return importlib.import_module(name)
    except HeadraceError as error:
        error.detail = _with_place(error.detail, path, error)
        raise
    except Exception as error:
        raise DefinitionError(
            "HR-0805",
            f"{path.name} does not load: {type(error).__name__}: {error}",
            detail=_with_place("", path, error),
            hint="mend the file; python itself must be able to run it",
            file=str(path),
        ) from error


def _with_place(detail: str, path: Path, error: Exception) -> str:
    """The last line of the definition files that the error came through."""
    root = str(path.parent.resolve())
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(root)]
    if not lines:
        return detail
    place = f"at {Path(lines[-1].filename).name}:{lines[-1].lineno}: {lines[-1].line}"
    return f"{detail}; {place}" if detail else place
