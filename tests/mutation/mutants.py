"""Mutants of a source file: every one small change that a test should notice, as a tree to compile. Pure.

Left out, as no test can tell or should have to: annotations, decorators, docstrings, assertions (`assert_never` and a
zip's `strict` are such), what a raise says, and lines that carry `# mutation: WHY` (an equivalent mutant, argued).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
PRAGMA = "# mutation:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change. kind: "guard" for a removed check that raises, which must never survive. was, becomes: for people."""

    line: int
    kind: str
    was: str
    becomes: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"line {self.line}: {self.was}  ->  {self.becomes}"


# A change to the node in a copied tree; the parent field is replaced by what it returns where that is not None.
Change = Callable[[ast.AST], ast.AST | None]


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant, in the order of the file."""
    tree = ast.parse(source)
    lines = source.splitlines()
    for index, node in enumerate(_mutable(tree)):
        if PRAGMA in lines[getattr(node, "lineno", 1) - 1]:
            continue
        for kind, change in _changes(node):
            mutated = copy.deepcopy(tree)
            target = _at(mutated, index)
            was = _brief(node)
            replacement = change(target)
            if replacement is not None:
                _replace(mutated, target, replacement)
            becomes = _brief(target if replacement is None else replacement)
            ast.fix_missing_locations(mutated)
            yield Mutant(line=getattr(node, "lineno", 0), kind=kind, was=was, becomes=becomes, tree=mutated)


def _mutable(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that may change, in the order of the file, the same for a tree and its copy."""
    yield from _walk(tree)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_comment") or isinstance(
            node, ast.Raise | ast.Assert
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_docstring(child) or _is_typing(child) or _is_strict(child):
                continue
            yield from _walk(child)


def _at(tree: ast.Module, index: int) -> ast.AST:
    for number, node in enumerate(_mutable(tree)):
        if number == index:
            return node
    raise IndexError(index)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_strict(node: ast.AST) -> bool:
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _is_typing(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    # A type alias (`Rows = A | B`) at the top of a module is no arithmetic.
    return isinstance(node, ast.TypeAlias) if hasattr(ast, "TypeAlias") else False


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                if type(op) in COMPARISONS:
                    yield "comparison", _compare(place, COMPARISONS[type(op)])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS and not _is_text(node):
            yield "arithmetic", _operator(OPERATORS[type(op)])
        case ast.BoolOp():
            yield "boolean", _boolean
        case ast.UnaryOp(op=ast.Not()):
            yield "boolean", lambda target: target.operand if isinstance(target, ast.UnaryOp) else None
        case ast.Constant(value=bool(value)):
            yield "constant", _constant(not value)
        case ast.Constant(value=int(value)):
            yield "constant", _constant(value + 1)
            yield "constant", _constant(value - 1)
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield "return", _return_nothing
        case ast.If(test=test, body=body, orelse=orelse):
            if not isinstance(test, ast.Compare | ast.UnaryOp):  # those are negated by a change of their own
                yield "boolean", _negate
            if not orelse and isinstance(body[-1], ast.Raise):
                yield "guard", _empty_body
            elif not orelse and isinstance(body[-1], ast.Return | ast.Continue | ast.Break):
                yield "early exit", _empty_body
        case ast.IfExp() | ast.While():
            yield "boolean", _negate
        case ast.Expr(value=ast.Call(func=func)) if not (isinstance(func, ast.Name) and func.id == "assert_never"):
            yield "statement", lambda target: ast.Pass()


def _compare(place: int, op: type[ast.cmpop]) -> Change:
    def change(target: ast.AST) -> None:
        assert isinstance(target, ast.Compare)
        target.ops[place] = op()

    return change


def _operator(op: type[ast.operator]) -> Change:
    def change(target: ast.AST) -> None:
        assert isinstance(target, ast.BinOp | ast.AugAssign)
        target.op = op()

    return change


def _constant(value: int | bool) -> Change:
    return lambda target: ast.Constant(value)


def _boolean(target: ast.AST) -> None:
    assert isinstance(target, ast.BoolOp)
    target.op = ast.Or() if isinstance(target.op, ast.And) else ast.And()


def _negate(target: ast.AST) -> None:
    assert isinstance(target, ast.If | ast.IfExp | ast.While)
    target.test = ast.UnaryOp(ast.Not(), target.test)


def _return_nothing(target: ast.AST) -> None:
    assert isinstance(target, ast.Return)
    target.value = ast.Constant(None)


def _empty_body(target: ast.AST) -> None:
    assert isinstance(target, ast.If)
    target.body = [ast.Pass()]


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    """Texts joined or formatted, and type aliases: no arithmetic."""
    sides = [node.left, node.right] if isinstance(node, ast.BinOp) else [node.value]
    if any(
        isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and isinstance(s.value, str | None)) for s in sides
    ):
        return True
    names = [s.id if isinstance(s, ast.Name) else getattr(s, "attr", "") for s in sides]
    types = all(name in ("int", "str", "float", "bool", "bytes") or name[:1].isupper() for name in names)
    return isinstance(node.op, ast.BitOr) and types and not all(name.isupper() for name in names)


def _replace(tree: ast.Module, target: ast.AST, replacement: ast.AST) -> None:
    ast.copy_location(replacement, target)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, field, replacement)
                return
            if isinstance(value, list):
                for place, child in enumerate(value):
                    if child is target:
                        value[place] = replacement
                        return
    raise LookupError("the node to replace is not in the tree")


def _brief(node: ast.AST) -> str:
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= 90 else text[:87] + "..."
