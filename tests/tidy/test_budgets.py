"""Budgets: a ratchet on size. A number here is never raised to let a file in."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.tree import Module, expect_none, found, violations

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70  # the docstring not counted
CLASS_METHODS_MAX = 25  # public ones


def file_too_long(module: Module) -> Iterator[str]:
    count = len(module.lines)
    if count > FILE_LINES_MAX:
        yield f"{module.path}: {count} lines, at most {FILE_LINES_MAX}: what is its second idea?"


def function_too_long(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            count -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
        if count > FUNCTION_LINES_MAX:
            yield f"{module.path}:{node.lineno} {node.name}: {count} lines, at most {FUNCTION_LINES_MAX}"


def class_too_wide(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            # A property with a setter is one name; an overload is no method of its own.
            public = {n.name for n in methods if not n.name.startswith("_")}
            if len(public) > CLASS_METHODS_MAX:
                yield f"{module.path}:{node.lineno} {node.name}: {len(public)} methods, at most {CLASS_METHODS_MAX}"


def test_files_are_short() -> None:
    expect_none(violations(file_too_long, under=""))


def test_functions_are_short() -> None:
    expect_none(violations(function_too_long, under=""))


def test_classes_are_narrow() -> None:
    expect_none(violations(class_too_wide))


def test_a_long_file_is_found() -> None:
    assert found(file_too_long, "a = 1\n" * FILE_LINES_MAX) == []
    assert found(file_too_long, "a = 1\n" * (FILE_LINES_MAX + 1))


def test_a_long_function_is_found_and_its_docstring_is_free() -> None:
    body = "    a = 1\n" * (FUNCTION_LINES_MAX - 1)
    docstring = '    """One.\n\n    Two.\n    """\n'
    assert found(function_too_long, f"def f():\n{docstring}{body}") == []
    assert found(function_too_long, f"def f():\n{body}    a = 1\n")


def test_a_wide_class_is_found() -> None:
    def methods(count: int, prefix: str) -> str:
        return "class C:\n" + "".join(f"    def {prefix}{i}(self): ...\n" for i in range(count))

    assert found(class_too_wide, methods(CLASS_METHODS_MAX, "m")) == []
    assert found(class_too_wide, methods(CLASS_METHODS_MAX + 1, "_m")) == []
    assert found(class_too_wide, methods(CLASS_METHODS_MAX + 1, "m"))
