"""The expression language's text: what is written reads back to the same tree, and what is wrong says where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace.core.errors import DefinitionError, InputError
from headrace.core.evaluate import compile_scalar
from headrace.core.expr import Call, Expr, Literal, call, describe, literal
from headrace.core.parse import DEPTH_MAX, TOKENS_MAX, parse, parse_filter
from headrace.core.schema import Kind

ORDERS = hr.Topic(
    "orders",
    key="country",
    fields={
        "country": hr.string,
        "amount": hr.decimal(12, 2),
        "count": hr.int64,
        "weight": hr.float64,
        "trusted": hr.boolean,
        "at": hr.timestamp,
    },
)
FIELDS = [ORDERS[name] for name in ORDERS.schema.names]
NAMES: dict[str, Expr] = {f.name: f for f in FIELDS} | {f.path: f for f in FIELDS}
NUMBERS = [f for f in FIELDS if f.type.numeric]
ZONES = ("UTC", "Europe/Amsterdam", "Etc/GMT+5")


def numbers() -> st.SearchStrategy[Expr]:
    constants = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.sampled_from(NUMBERS) | constants.map(literal)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(call, st.sampled_from(("add", "sub", "mul", "div", "pow")), inner, inner),
            st.builds(call, st.sampled_from(("abs", "neg", "exp", "log", "sqrt", "floor", "ceil")), inner),
            st.builds(lambda a, b: call("coalesce", a, b), inner, inner),
            st.sampled_from(ZONES).map(lambda zone: call("hour", ORDERS.at, tz=zone)),
        ),
        max_leaves=6,
    )


def conditions() -> st.SearchStrategy[Expr]:
    compared = st.builds(call, st.sampled_from(("eq", "ne", "lt", "le", "gt", "ge")), numbers(), numbers())
    words = st.text(max_size=8).map(lambda text: call("eq", ORDERS.country, text))
    leaves = st.one_of(
        compared,
        words,
        st.just(ORDERS.trusted),
        st.booleans().map(literal),
        st.builds(call, st.sampled_from(("is_null", "is_not_null")), st.sampled_from(FIELDS)),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(call, st.sampled_from(("and", "or")), inner, inner),
            st.builds(call, st.just("not"), inner),
            st.builds(lambda a, b, c: call("if_else", a, b, c), inner, inner, inner),
        ),
        max_leaves=6,
    )


@given(conditions() | numbers())
def test_what_describe_writes_reads_back(tree: Expr) -> None:
    found = parse(describe(tree), NAMES)
    assert describe(found) == describe(tree)
    assert found.type == tree.type


_BINDS = {"or": 1, "and": 2, "not": 3, **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), 4), "add": 5, "sub": 5}
_BINDS |= {"mul": 6, "div": 6, "neg": 7, "pow": 8}
_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "add": "+", "sub": "-", "mul": "*"}
_SIGNS |= {"div": "/", "pow": "**", "and": "and", "or": "or"}


def written(tree: Expr, around: int, space: str) -> str:
    """As a person writes it: signs, and only the parentheses that are needed."""
    match tree:
        case Literal(value=int(value) | float(value)) if not isinstance(value, bool) and value < 0 and around > 7:
            return f"({value!r})"
        case Call(op="is_null" | "is_not_null" as op, args=(one,)):
            said = f"{written(one, 5, space)} is {'not ' if op == 'is_not_null' else ''}null"
            return said if around <= 4 else f"({said})"
        case Call(op="not" | "neg" as op, args=(one,)):
            binds = _BINDS[op]
            sign = "not " if op == "not" else "-"
            inner = written(one, binds, space)
            # Minus before a bare number is the number's own.
            said = f"{sign}({inner})" if op == "neg" and isinstance(one, Literal) else f"{sign}{inner}"
            return said if around <= binds else f"({said})"
        case Call(op=op, args=(left, right)) if op in _SIGNS:
            binds = _BINDS[op]
            compares, power = binds == 4, op == "pow"
            first = written(left, binds + (compares or power), space)
            second = written(right, 7 if power else binds + 1, space)
            spaced = space or (" " if op in ("and", "or") else "")
            said = f"{first}{spaced}{_SIGNS[op]}{spaced}{second}"
            return said if around <= binds else f"({said})"
        case Call(op="if_else", args=(test, then, otherwise)):
            said = f"{written(test, 1, space)} ? {written(then, 0, space)} : {written(otherwise, 0, space)}"
            return said if around <= 0 else f"({said})"
        case Call(op=op, args=args, tz=tz):
            zone = [f'tz="{tz}"'] if op == "hour" else []
            return f"{op}({', '.join([*(written(a, 0, space) for a in args), *zone])})"
    return describe(tree)


@given(conditions() | numbers(), st.sampled_from(("", " ", "\n  ")))
def test_what_a_person_writes_reads_back(tree: Expr, space: str) -> None:
    assert describe(parse(written(tree, 0, space), NAMES)) == describe(tree)


@given(st.text(max_size=40) | st.text(alphabet="ab()!-+*<>=&|'\"[],.? :0129einostrum", max_size=40))
def test_any_text_is_read_or_refused_with_its_place(text: str) -> None:
    try:
        parse(text, NAMES)
    except InputError as error:
        assert error.code == "HR-0352"
        assert 0 <= error.facts["position"] <= len(text)  # type: ignore[operator]  # an int, as the docstring says


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("amount > 100 && country == 'NL'", (ORDERS.amount > 100) & (ORDERS.country == "NL")),
        ("country in ['NL', \"BE\"]", ORDERS.country.is_in("NL", "BE")),
        ("between(count, 1, 3)", ORDERS["count"].between(1, 3)),
        ("count = 1 || !trusted", (ORDERS["count"] == 1) | ~ORDERS.trusted),
        ("not count == 1", ~(ORDERS["count"] == 1)),
        ("country == null", ORDERS.country.is_null()),
        ("country != null", ORDERS.country.is_not_null()),
        ("-2 ** 2", -(literal(2) ** 2)),
        ("2 ** -1 ** 2", literal(2) ** -(literal(1) ** 2)),
        ("amount × 2 ≥ .5e1", ORDERS.amount * 2 >= 5.0),
        ("weight ≤ 1. and weight ≠ 0", (ORDERS.weight <= 1.0) & (ORDERS.weight != 0)),
        ("'it\\'s\\n'", literal("it's\n")),
        ("weekday(at, tz=Europe/Amsterdam)", hr.weekday(ORDERS.at, tz="Europe/Amsterdam")),
        ("trusted ? 1 : trusted ? 2 : 3", hr.if_else(ORDERS.trusted, 1, hr.if_else(ORDERS.trusted, 2, 3))),
    ],
)
def test_people_and_cel_write_it_so(text: str, tree: Expr) -> None:
    assert describe(parse(text, NAMES)) == describe(tree)


def test_a_constant_beside_a_field_has_its_type() -> None:
    found = parse('at >= "2026-11-21T10:00:00Z"', NAMES)
    assert describe(found) == "ge(orders.at, 1795255200000000)"
    assert describe(parse('"2026-11-21T10:00:00Z" <= at', NAMES)) == "le(1795255200000000, orders.at)"
    exact = parse('amount == decimal("12.5")', NAMES)
    assert isinstance(exact, Call) and [a.type for a in exact.args] == [hr.decimal(12, 2)] * 2
    assert compile_scalar(exact, ["orders.amount"])([1250]) is True
    finer = parse('amount < decimal("0.005")', NAMES)  # no cent: compared as doubles
    assert isinstance(finer, Call) and finer.args[1].type == hr.decimal(3, 3)
    wide = parse('amount < decimal("99999999999")', NAMES)  # more digits than the field has
    assert isinstance(wide, Call) and wide.args[1].type.precision == 11
    assert parse('timestamp("2026-11-21T10:00:00Z")', NAMES).type.kind is Kind.TIMESTAMP
    negative = parse('decimal("-0.50")', NAMES)
    assert isinstance(negative, Literal) and (negative.value, negative.type) == (-50, hr.decimal(2, 2))
    length = parse('duration("1h30m")', NAMES)
    assert isinstance(length, Literal) and (length.value, length.type.kind) == (5_400_000_000, Kind.DURATION)


def refused(text: str) -> InputError:
    with pytest.raises(InputError) as seen:
        parse_filter(text, NAMES)
    assert seen.value.code == "HR-0352"
    return seen.value


@pytest.mark.parametrize(
    ("text", "position", "message", "hint"),
    [
        ("amount >", 8, "expected a value, seen 'the end'", ""),
        ("amount > 1 2", 11, "'2' follows a whole expression", "join two with 'and' or 'or'"),
        ("amuont > 1", 0, "unknown name 'amuont'", "did you mean 'amount'?"),
        ("sqtr(amount) > 1", 0, "unknown function 'sqtr'", "did you mean 'sqrt'?"),
        ("sqrt(amount, 1) > 1", 0, "sqrt takes 1, seen 2", ""),
        ("1 < count < 3", 10, "a comparison of a comparison", "write a < b and b < c"),
        ("country > 'a' and country > 3", 26, "gt does not take (string, int64)", "in orders.country, 3"),
        ("(amount > 1", 11, "expected ')', seen 'the end'", ""),
        ("country in []", 12, "expected a value, seen ']'", ""),
        ("country == 'NL", 11, '"\'" has no meaning here', "close the quotes"),
        ("amount > null", 7, "null has no order", "write 'is null' or 'is not null'"),
        ("coalesce(null, 1) == 1", 9, "null is no value here", "write 'is null' or 'is not null'"),
        ("at > 'yesterday'", 3, "not an instant: 'yesterday'", "expected ISO 8601 with a zone"),
        ("amount > decimal('x')", 17, "not a decimal: 'x'", ""),
        ("amount > decimal('1e18')", 17, "not a decimal of 18 digits: '1e18'", ""),
        ("amount > decimal('NaN')", 17, "not a decimal of 18 digits: 'NaN'", ""),
        ("amount > decimal(1)", 17, "decimal takes a text in quotes", 'write decimal("...")'),
        ("amount > 9223372036854775808", 9, "9223372036854775808 cannot stand in an expression", "expected a bool"),
        ("country == '\\x'", 11, "a text with an escape that does not exist", "write \\\\ for a backslash"),
        ("amount + 1", 0, "a filter is true or false, this is float64", "compare it, as in 'amount > 100'"),
        ("", 0, "expected a value, seen 'the end'", ""),
    ],
)
def test_what_is_wrong_says_where(text: str, position: int, message: str, hint: str) -> None:
    error = refused(text)
    assert error.message == f"the expression, at {position + 1}: {message}"
    assert error.hint.startswith(hint) and (hint or not error.hint)
    assert error.facts["position"] == position
    shown, mark = error.detail.split("\n  ")
    assert shown == text and mark == " " * position + "^"


def test_of_a_long_line_the_place_is_shown() -> None:
    error = refused(f"country == '{'x' * 200}' and amuont > 1")
    shown, mark = error.detail.split("\n  ")
    assert len(shown) <= 100 and shown[len(mark) - 1 :].startswith("amuont")


def test_what_is_deep_or_long_is_refused_before_the_stack_is_full() -> None:
    assert "nested deeper" in refused("(" * (DEPTH_MAX + 1)).message
    assert "nested deeper" in refused("2 " + "** 2 " * DEPTH_MAX + "> 1").message
    assert "too long" in refused("!" * 5000 + "trusted").message
    assert "too long" in refused("1 + " * 5000 + "1 > 1").message
    deep = "!" * (TOKENS_MAX - 2) + "trusted"
    assert describe(parse(deep, NAMES)).count("not(") == TOKENS_MAX - 2
    nested = "(" * (DEPTH_MAX - 1) + "trusted" + ")" * (DEPTH_MAX - 1)
    assert describe(parse(nested, NAMES)) == "orders.trusted"


def test_an_unknown_zone_is_found_when_it_is_compiled() -> None:
    found = parse("hour(at, tz=Mars/Base) < 3", NAMES)
    with pytest.raises(DefinitionError) as seen:
        compile_scalar(found, ["orders.at"])
    assert seen.value.code == "HR-0114"
