"""The files of the repository as the house rules see them: git's, and what is new and not ignored. Reads both."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = "src/headrace/"


@dataclass(frozen=True, slots=True)
class Module:
    """A Python file: its path from the repository's root, its text, its tree."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> Module:
        return cls(path, text, ast.parse(text, filename=path))

    @property
    def inside(self) -> str:
        """The path from src/headrace on, "" for a file elsewhere."""
        return self.path.removeprefix(PACKAGE) if self.path.startswith(PACKAGE) else ""

    @property
    def name(self) -> str:
        """The dotted name of a file under src/."""
        parts = PurePosixPath(self.path.removeprefix("src/")).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


Rule = Callable[[Module], Iterable[str]]


@functools.cache
def files() -> tuple[str, ...]:
    """Every file that is, or will be, in the repository, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(sorted({path for path in listed.stdout.splitlines() if (ROOT / path).is_file()}))


@functools.cache
def modules(under: str = "") -> tuple[Module, ...]:
    """The Python files under a folder."""
    return tuple(
        Module.of(path, (ROOT / path).read_text())
        for path in files()
        if path.endswith(".py") and path.startswith(under)
    )


def violations(rule: Rule, *, under: str = PACKAGE) -> list[str]:
    """What the rule finds in the repository."""
    return [found for module in modules(under) for found in rule(module)]


def expect_none(found: Iterable[str]) -> None:
    """Fails with all of them, one a line: they are mended in one go."""
    lines = list(found)
    if lines:
        pytest.fail("\n".join([f"{len(lines)} against the house rules:", *lines]), pytrace=False)


def found(rule: Rule, text: str, *, path: str = "src/headrace/log/define.py") -> list[str]:
    """What the rule finds in a made-up file: for the proofs that it bites."""
    return list(rule(Module.of(path, text)))


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module. function: it stands in a function. typing: it stands under `if TYPE_CHECKING`."""

    name: str
    line: int
    function: bool
    typing: bool


def imports(module: Module) -> Iterator[Import]:
    """Every import, `from a import b` as "a.b" where b may be a module: callers match by prefix."""
    yield from _imports(module.tree, module, function=False, typing=False)


def _imports(node: ast.AST, module: Module, *, function: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                for alias in child.names:
                    yield Import(alias.name, child.lineno, function, typing)
            case ast.ImportFrom():
                origin = child.module or ""
                if child.level:
                    package = module.name.split(".")
                    if not module.path.endswith("__init__.py"):
                        package = package[:-1]
                    package = package[: len(package) - child.level + 1]
                    origin = ".".join([*package, *([origin] if origin else [])])
                for alias in child.names:
                    yield Import(f"{origin}.{alias.name}", child.lineno, function, typing)
            case ast.If() if "TYPE_CHECKING" in ast.unparse(child.test):
                for part in child.body:
                    yield from _imports(ast.Module([part], []), module, function=function, typing=True)
                for part in child.orelse:
                    yield from _imports(ast.Module([part], []), module, function=function, typing=typing)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _imports(child, module, function=True, typing=typing)
            case _:
                yield from _imports(child, module, function=function, typing=typing)


def within(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)
