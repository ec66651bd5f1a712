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
            # A bound lowered for a test, by its name and to a number, replaces no part.
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="monkeypatch"), attr="setattr"),
                args=[ast.Constant(value=str(name)), ast.Constant(value=int() | float() as bound)],
            ) if name.rpartition(".")[2].isupper() and not isinstance(bound, bool):
                continue
            case ast.Call(func=ast.Attribute(value=ast.Name(id="monkeypatch"), attr="setattr" | "setitem" | "delattr")):
                yield f"{module.path}:{node.lineno} patches what runs: pass the part in"
            case ast.FunctionDef(args=arguments) if any(a.arg == "mocker" for a in arguments.args):
                yield f"{module.path}:{node.lineno} takes a mocker: use the real part, or a fake from headrace.testing"


def broad_except(module: Module) -> Iterator[str]:
    """Only the boundaries catch everything. Elsewhere a handler that always ends in a bare `raise` catches nothing."""
    inside = module.inside
    if inside.endswith("/run.py") or inside.startswith(("cli/", "api/")):
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.ExceptHandler():
                caught = node.type is None or _is_broad(node.type)
                if caught and not _raises_again(node.body):
                    yield f"{module.path}:{node.lineno} catches everything: name the errors; {BOUNDARIES}"
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=errors):
                if any(_is_broad(error) for error in errors):
                    yield f"{module.path}:{node.lineno} suppresses everything: name the errors; {BOUNDARIES}"


BOUNDARIES = "boundaries are run.py, cli/, api/"


def _is_broad(caught: ast.expr) -> bool:
    names = (n.id if isinstance(n, ast.Name) else getattr(n, "attr", "") for n in ast.walk(caught))
    return any(name in ("Exception", "BaseException") for name in names)


def _raises_again(body: list[ast.stmt]) -> bool:
    """Its last statement is a bare `raise`, and none before it leaves the handler another way."""
    last = body[-1]
    return isinstance(last, ast.Raise) and last.exc is None and not any(_leaves(part) for part in body[:-1])


def _leaves(node: ast.AST, *, loop: bool = False) -> bool:
    match node:
        case ast.Return():
            return True
        case ast.Break() | ast.Continue():
            return not loop
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
            return False
    loop = loop or isinstance(node, ast.For | ast.AsyncFor | ast.While)
    return any(_leaves(child, loop=loop) for child in ast.iter_child_nodes(node))


# Who may ask the environment: the kernel's cache for its folder, and the command line, which hands values on.
# Doors that a notebook or a program comes in by look where the command line does: which log, which password.
ENVIRONMENT_READERS = ("core/kernel/cache.py", "cli/", "runtime/project.py", "sdk/connect.py")


def environment_read(module: Module) -> Iterator[str]:
    if module.inside.startswith(ENVIRONMENT_READERS):
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "getenvb" as name):
                yield f"{module.path}:{node.lineno} reads os.{name}: pass the value in"
            case ast.ImportFrom(module="os", names=names) if any("env" in one.name for one in names):
                yield f"{module.path}:{node.lineno} imports the environment from os: pass the value in"


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


def test_the_environment_is_read_in_its_places() -> None:
    expect_none(violations(environment_read))


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
    assert found(mock, "def test(monkeypatch):\n    monkeypatch.setattr('a.LIMIT_S', 0.5)") == []
    for value in ("None", "'text'", "True", "four"):
        assert found(mock, f"def test(monkeypatch):\n    monkeypatch.setattr('a.LIMIT', {value})"), value
    assert found(mock, "def test(monkeypatch):\n    monkeypatch.setenv('A', 'b')") == []


def test_a_broad_except_is_found() -> None:
    for caught in ("except Exception:", "except:", "except (ValueError, BaseException) as error:"):
        text = f"try:\n    a()\n{caught}\n    pass"
        assert found(broad_except, text), caught
        assert found(broad_except, text, path="src/headrace/log/run.py") == []
        assert found(broad_except, text.replace("pass", "undo()\n    raise")) == []
    assert found(broad_except, "try:\n    a()\nexcept ValueError:\n    pass") == []
    for way_out in ("if b:\n        return", "while b:\n        return"):
        assert found(broad_except, f"try:\n    a()\nexcept Exception:\n    {way_out}\n    raise"), way_out
    inner = "for b in c:\n        if b:\n            continue\n        undo(b)"
    assert found(broad_except, f"try:\n    a()\nexcept Exception:\n    {inner}\n    raise") == []
    assert found(broad_except, "for b in c:\n  try:\n    a()\n  except Exception:\n    if b: continue\n    raise")
    assert found(broad_except, "with contextlib.suppress(Exception):\n    a()")
    assert found(broad_except, "with suppress(OSError):\n    a()") == []
    assert found(broad_except, "try:\n    a()\nexcept builtins.Exception:\n    pass")
    assert found(broad_except, "try:\n    a()\nexcept Exception:\n    pass", path="src/headrace/log/prerun.py")


def test_a_read_of_the_environment_is_found() -> None:
    for text in ("os.environ['A']", "'A' in os.environ", "os.getenv('A')", "from os import environ"):
        assert found(environment_read, text), text
        assert found(environment_read, text, path="src/headrace/cli/main.py") == []


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
