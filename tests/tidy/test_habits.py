"""Habits: real parts and no mocks, errors caught where they are understood, frozen values, files with docstrings."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.test_layers import is_pure
from tests.tidy.tree import Module, expect_none, found, imports, violations, within


def mock(module: Module) -> Iterator[str]:
    for one in imports(module):
        if within(one.name, "unittest.mock", "mock", "pytest_mock"):
            yield f"{module.path}:{one.line} imports {one.name}: use the real part, or a fake from headrace.testing"
    for node in ast.walk(module.tree):
        match node:
            # A limit lowered for a test, by its name and to a number, replaces no part.
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="monkeypatch"), attr="setattr"),
                args=[ast.Constant(value=str(name)), ast.Constant()],
            ) if name.rpartition(".")[2].isupper():
                continue
            case ast.Call(func=ast.Attribute(value=ast.Name(id="monkeypatch"), attr="setattr" | "setitem" | "delattr")):
                yield f"{module.path}:{node.lineno} patches what runs: pass the part in"
            case ast.FunctionDef(args=arguments) if any(a.arg == "mocker" for a in arguments.args):
                yield f"{module.path}:{node.lineno} takes a mocker: use the real part, or a fake from headrace.testing"


def broad_except(module: Module) -> Iterator[str]:
    """Only the boundaries catch everything. Elsewhere a handler that ends in a bare `raise` catches nothing."""
    inside = module.inside
    if inside.endswith("run.py") or inside.startswith(("cli/", "api/")):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
        last = node.body[-1]
        if caught & {"Exception", "BaseException"} and not (isinstance(last, ast.Raise) and last.exc is None):
            yield f"{module.path}:{node.lineno} catches everything: name the errors; boundaries are run.py, cli/, api/"


def no_docstring(module: Module) -> Iterator[str]:
    if module.text.strip() and ast.get_docstring(module.tree) is None:
        yield f"{module.path}: no docstring: what it is, the one idea, 'Pure.' or what it touches"


def loose_value(module: Module) -> Iterator[str]:
    """Core, definitions and plans hold frozen values."""
    if not is_pure(module):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            text = ast.unparse(decorator)
            if text.split("(")[0].endswith("dataclass") and "frozen=True" not in text:
                yield f"{module.path}:{node.lineno} {node.name}: a dataclass here is frozen"


def any_in_signature(module: Module) -> Iterator[str]:
    if not (is_pure(module) or module.inside.endswith("/port.py")):
        return
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        annotations = [a.annotation for a in arguments if a is not None] + [node.returns]
        if any(isinstance(n, ast.Name) and n.id == "Any" for a in annotations if a is not None for n in ast.walk(a)):
            yield f"{module.path}:{node.lineno} {node.name}: no Any in signatures; object, Protocol, type variable"


def printed(module: Module) -> Iterator[str]:
    if module.inside.startswith("cli/"):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{module.path}:{node.lineno} prints: return it; the CLI says it"


def test_no_mocks() -> None:
    expect_none(violations(mock, under="tests/") + violations(mock))


def test_only_boundaries_catch_everything() -> None:
    expect_none(violations(broad_except))


def test_every_file_says_what_it_is() -> None:
    expect_none(violations(no_docstring))


def test_values_are_frozen() -> None:
    expect_none(violations(loose_value))


def test_no_any_in_signatures_of_core_ports_and_definitions() -> None:
    expect_none(violations(any_in_signature))


def test_only_the_command_line_prints() -> None:
    expect_none(violations(printed))


def test_a_mock_is_found() -> None:
    assert found(mock, "from unittest.mock import patch")
    assert found(mock, "from unittest import mock")
    assert found(mock, "def test(monkeypatch):\n    monkeypatch.setattr(a, 'b', 1)")
    assert found(mock, "def test(mocker): ...")
    assert found(mock, "def test(monkeypatch):\n    monkeypatch.setattr('a.b', lambda: 1)")
    assert found(mock, "def test(monkeypatch):\n    monkeypatch.setattr('a.LIMIT', 4)") == []
    assert found(mock, "def test(monkeypatch):\n    monkeypatch.setenv('A', 'b')") == []


def test_a_broad_except_is_found() -> None:
    for caught in ("except Exception:", "except:", "except (ValueError, BaseException) as error:"):
        text = f"try:\n    a()\n{caught}\n    pass"
        assert found(broad_except, text), caught
        assert found(broad_except, text, path="src/headrace/log/run.py") == []
        assert found(broad_except, text.replace("pass", "undo()\n    raise")) == []
    assert found(broad_except, "try:\n    a()\nexcept ValueError:\n    pass") == []


def test_a_file_without_docstring_is_found() -> None:
    assert found(no_docstring, "a = 1")
    assert found(no_docstring, '"""What it is. Pure."""\na = 1') == []
    assert found(no_docstring, "") == []


def test_a_loose_value_is_found() -> None:
    assert found(loose_value, "@dataclass\nclass A: ...")
    assert found(loose_value, "@dataclasses.dataclass(slots=True)\nclass A: ...")
    assert found(loose_value, "@dataclass(frozen=True)\nclass A: ...") == []
    assert found(loose_value, "@dataclass\nclass A: ...", path="src/headrace/log/run.py") == []


def test_an_any_is_found() -> None:
    assert found(any_in_signature, "def f(a: Any) -> int: ...")
    assert found(any_in_signature, "def f(*a: int, **b: dict[str, Any]) -> int: ...")
    assert found(any_in_signature, "def f() -> list[Any]: ...", path="src/headrace/log/port.py")
    assert found(any_in_signature, "def f(a: object) -> int: ...") == []


def test_a_print_is_found() -> None:
    assert found(printed, "print(1)")
    assert found(printed, "print(1)", path="src/headrace/cli/main.py") == []
