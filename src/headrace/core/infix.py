"""An expression as people write it: signs between values, only the parentheses that are needed. Pure.

The one idea: `describe` is for machines and says everything; here a name stands for what it names.
"""

from __future__ import annotations

from headrace.core.expr import Call, Expr, Literal, Named, Reference, Source

# how it is written, and how closely it binds
_SIGNS = {
    "or": (" or ", 1),
    "and": (" and ", 2),
    "eq": (" = ", 4),
    "ne": (" ≠ ", 4),
    "lt": (" < ", 4),
    "le": (" ≤ ", 4),
    "gt": (" > ", 4),
    "ge": (" ≥ ", 4),
    "add": (" + ", 5),
    "sub": (" - ", 5),
    "mul": (" × ", 6),
    "div": (" / ", 6),
}


def infix(expr: Expr, around: int = 0) -> str:
    """An expression in words; not to be read back. around: how closely what stands around it binds."""
    match expr:
        case Named(name=name):
            return name
        case Literal(value=bool(value)):
            return "true" if value else "false"
        case Literal(value=int(value) | float(value)):
            return f"{value:,.10g}"
        case Literal(value=str(value)):
            return f"'{value}'"
        case Literal(value=value):
            return str(value)
        case Reference(source=Source.FIELD, name=name):
            return name
        case Reference():
            return expr.path
        case Call(op="is_null", args=(one,)):
            return f"{infix(one, 9)} is null"
        case Call(op="is_not_null", args=(one,)):
            return f"{infix(one, 9)} is not null"
        case Call(op="not", args=(one,)):
            return f"not {infix(one, 9)}"
        case Call(op=op, args=(left, right)) if op in _SIGNS:
            sign, binds = _SIGNS[op]
            said = f"{infix(left, binds)}{sign}{infix(right, binds + 1)}"
            return f"({said})" if binds < around else said
        case Call(op=op, args=parts):
            return f"{op}({', '.join(infix(part) for part in parts)})"
    raise AssertionError(f"an expression is one of the above, not {type(expr).__name__}")
