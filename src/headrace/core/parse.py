"""The expression language as text, read into the same typed tree as Python's operators build. Pure.

    amount > 100 and (country == "NL" or country in ["BE", "LU"]) and not (voucher is null)
    hour(created_at, tz="Europe/Amsterdam") < 6 ? amount * 2 : amount
    at >= timestamp("2026-11-21T10:00:00Z") && amount == decimal("12.50")

From loose to tight: `a ? b : c`; `or`, `||`; `and`, `&&`; `not`; `==` `!=` `<` `<=` `>` `>=` `in [...]` `is null`
`is not null`; `+` `-`; `*` `/`; `-` `!`; `**`. Functions by their names in `core/expr.py`, operators too (`add(a, b)`),
so that what `describe` writes reads back. Texts stand in single or double quotes with Python's escapes.

A constant beside a field takes the field's type where it says the same there: a text beside a timestamp is an instant,
beside a duration a duration; `decimal("12.50")` beside a decimal is exact. Bare numbers are as in Python: integers, and
doubles with a point.
"""

from __future__ import annotations

import ast
import decimal
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headrace.core import schema
from headrace.core.errors import HeadraceError, InputError, did_you_mean
from headrace.core.expr import ARITHMETIC, COMPARISONS, FUNCTIONS, Expr, Literal, call, literal
from headrace.core.schema import DECIMAL_PRECISION_MAX, DataType, Kind
from headrace.core.times import Duration, instant

TOKENS_MAX = 256  # some ten times what anyone types; a tree is no deeper, and Python's stack holds twice that
DEPTH_MAX = 30  # of nesting: nine calls each on the same stack

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
  | (?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
  | (?P<sign>\*\*|==|!=|<=|>=|&&|\|\||[-<>=!+*/()\[\],?:≠≤≥×])
  )""",
    re.VERBOSE,
)
_COMPARED = {
    "==": "eq", "=": "eq", "!=": "ne", "≠": "ne", "<": "lt", "<=": "le", "≤": "le", ">": "gt", ">=": "ge", "≥": "ge",
}  # fmt: skip
_SUMS = {"+": "add", "-": "sub"}
_PRODUCTS = {"*": "mul", "×": "mul", "/": "div"}
_WORDS = {"true": True, "True": True, "false": False, "False": False}
_ARITY = {
    **dict.fromkeys((*ARITHMETIC, *COMPARISONS, "and", "or"), 2),
    **dict.fromkeys((*FUNCTIONS, "neg", "abs", "not", "is_null", "is_not_null", "hour", "weekday"), 1),
    "if_else": 3,
}
_TYPED = ("decimal", "duration", "timestamp")
_CALLED = (*_ARITY, "coalesce", "between", *_TYPED)


def parse(text: str, names: Mapping[str, Expr]) -> Expr:
    """The tree behind a text. names: what a word stands for, as "amount" and "orders.amount".

    Raises: InputError HR-0352 with the place (fact `position`, from 0), for what is no expression, for an unknown name,
    for operands whose types do not fit.
    """
    return _Reader(text, _tokens(text), names).whole()


def parse_filter(text: str, names: Mapping[str, Expr]) -> Expr:
    """As `parse`, of an expression that is true or false."""
    found = parse(text, names)
    if found.type.kind is not Kind.BOOLEAN:
        raise _wrong(text, 0, f"a filter is true or false, this is {found.type}", "compare it, as in 'amount > 100'")
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, text, name, sign, end
    text: str
    place: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    while (at := place + len(text[place:]) - len(text[place:].lstrip())) < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            hint = "close the quotes" if text[at] in "'\"" else ""
            raise _wrong(text, at, f"{text[at]!r} has no meaning here", hint)
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        if len(found) > TOKENS_MAX:
            raise _wrong(text, found[-1].place, f"it is too long: at most {TOKENS_MAX} words and signs")
        place = match.end()
    found.append(_Token("end", "", len(text)))
    return found


def _wrong(text: str, place: int, message: str, hint: str = "") -> InputError:
    """The line with a mark below the place; of a long line what stands around it."""
    begin = max(0, place - 60)
    shown = text[begin : place + 40].replace("\n", " ")
    return InputError(
        "HR-0352",
        f"the expression, at {place + 1}: {message}",
        detail=f"{shown}\n  {' ' * (place - begin)}^",
        hint=hint,
        position=place,
    )


class _Reader:
    """Recursive descent: one method a level of binding, each returns the tree of what it read."""

    def __init__(self, text: str, tokens: list[_Token], names: Mapping[str, Expr]) -> None:
        self._text = text
        self._tokens = tokens
        self._names = names
        self._next = 0
        self._depth = 0

    def whole(self) -> Expr:
        found = self._choice()
        token = self._seen
        if token.kind != "end":
            raise self._fails(token, f"{token.text!r} follows a whole expression", "join two with 'and' or 'or'")
        return found

    # --- tokens ---

    @property
    def _seen(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _if(self, *texts: str) -> _Token | None:
        """The token, taken, if it is one of these signs or words."""
        token = self._seen
        if token.kind in ("sign", "name") and token.text in texts:
            return self._take()
        return None

    def _expect(self, text: str) -> _Token:
        token = self._if(text)
        if token is None:
            raise self._fails(self._seen, f"expected {text!r}, seen {self._seen.text or 'the end'!r}")
        return token

    def _fails(self, token: _Token, message: str, hint: str = "") -> InputError:
        return _wrong(self._text, token.place, message, hint)

    def _typed(self, token: _Token, make: Callable[[], Expr]) -> Expr:
        """What the tree's own checks refuse, with the place."""
        try:
            return make()
        except HeadraceError as error:
            if "position" in error.facts:
                raise
            raise self._fails(token, error.message, error.hint or error.detail) from error

    # --- levels ---

    def _choice(self) -> Expr:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._fails(self._seen, f"it is nested deeper than {DEPTH_MAX}")
        condition = self._or()
        if (token := self._if("?")) is not None:
            then = self._choice()
            self._expect(":")
            otherwise = self._choice()
            test = condition
            condition = self._typed(token, lambda: call("if_else", test, then, otherwise))
        self._depth -= 1
        return condition

    def _or(self) -> Expr:
        left = self._and()
        while (token := self._if("or", "||")) is not None:
            left = self._joined("or", token, left, self._and())
        return left

    def _and(self) -> Expr:
        left = self._not()
        while (token := self._if("and", "&&")) is not None:
            left = self._joined("and", token, left, self._not())
        return left

    def _not(self) -> Expr:
        tokens = []
        while (token := self._if("not")) is not None:
            tokens.append(token)
        found = self._comparison()
        for token in reversed(tokens):
            found = self._unary("not", token, found)
        return found

    def _comparison(self) -> Expr:
        left = self._sum()
        token = self._seen
        if token.kind == "sign" and token.text in _COMPARED:
            self._take()
            left = self._compared(token, left)
            if self._seen.kind == "sign" and self._seen.text in _COMPARED:
                raise self._fails(self._seen, "a comparison of a comparison", "write a < b and b < c")
            return left
        if (token_in := self._if("in")) is not None:
            return self._among(token_in, left)
        if (token_is := self._if("is")) is not None:
            op = "is_not_null" if self._if("not") is not None else "is_null"
            self._expect("null")
            return self._unary(op, token_is, left)
        return left

    def _compared(self, token: _Token, left: Expr) -> Expr:
        op = _COMPARED[token.text]
        if self._if("null") is not None:
            if op not in ("eq", "ne"):
                raise self._fails(token, "null has no order", "write 'is null' or 'is not null'")
            return self._unary("is_null" if op == "eq" else "is_not_null", token, left)
        return self._joined(op, token, left, self._sum())

    def _among(self, token: _Token, left: Expr) -> Expr:
        """As `Expr.is_in` builds it: equal to one of them."""
        self._expect("[")
        found: Expr | None = None
        while True:
            one = self._joined("eq", token, left, self._choice())
            found = one if found is None else self._joined("or", token, found, one)
            if self._if(",") is None:
                self._expect("]")
                return found

    def _sum(self) -> Expr:
        left = self._product()
        while (token := self._if(*_SUMS)) is not None:
            left = self._joined(_SUMS[token.text], token, left, self._product())
        return left

    def _product(self) -> Expr:
        left = self._signed()
        while (token := self._if(*_PRODUCTS)) is not None:
            left = self._joined(_PRODUCTS[token.text], token, left, self._signed())
        return left

    def _signed(self) -> Expr:
        tokens = []
        while (token := self._if("-", "!")) is not None:
            tokens.append(token)
        if tokens and tokens[-1].text == "-" and self._seen.kind == "number" and self._after().text != "**":
            tokens.pop()
            found = self._number(self._take(), negative=True)
        else:
            found = self._power()
        for token in reversed(tokens):
            found = self._unary("neg" if token.text == "-" else "not", token, found)
        return found

    def _after(self) -> _Token:
        return self._tokens[min(self._next + 1, len(self._tokens) - 1)]

    def _power(self) -> Expr:
        base = self._primary()
        if (token := self._if("**")) is not None:
            self._depth += 1  # to the right, so a long row of them is deep
            if self._depth > DEPTH_MAX:
                raise self._fails(token, f"it is nested deeper than {DEPTH_MAX}")
            exponent = self._signed()
            self._depth -= 1
            return self._joined("pow", token, base, exponent)
        return base

    # --- values ---

    def _primary(self) -> Expr:
        token = self._take()
        match token.kind:
            case "number":
                return self._number(token)
            case "text":
                return self._typed(token, lambda: literal(self._string(token)))
            case "sign" if token.text == "(":
                found = self._choice()
                self._expect(")")
                return found
            case "name" if self._seen.text == "(" and self._seen.kind == "sign":
                return self._called(token)
            case "name":
                return self._named(token)
        raise self._fails(token, f"expected a value, seen {token.text or 'the end'!r}")

    def _number(self, token: _Token, *, negative: bool = False) -> Expr:
        whole = token.text.isdecimal()
        value: int | float = int(token.text) if whole else float(token.text)
        return self._typed(token, lambda: literal(-value if negative else value))

    def _string(self, token: _Token) -> str:
        try:
            value = ast.literal_eval(token.text)
        except (ValueError, SyntaxError) as error:
            raise self._fails(
                token, "a text with an escape that does not exist", "write \\\\ for a backslash"
            ) from error
        assert isinstance(value, str), "the token is quoted"
        return value

    def _named(self, token: _Token) -> Expr:
        if token.text in _WORDS:
            return literal(_WORDS[token.text])
        if token.text == "null":
            raise self._fails(token, "null is no value here", "write 'is null' or 'is not null'")
        if token.text not in self._names:
            known = [name for name in self._names if "." not in name] or list(self._names)
            raise self._fails(token, f"unknown name {token.text!r}", did_you_mean(token.text, known))
        return self._names[token.text]

    def _called(self, token: _Token) -> Expr:
        name = token.text
        if name not in _CALLED:
            raise self._fails(token, f"unknown function {name!r}", did_you_mean(name, _CALLED))
        self._expect("(")
        if name in _TYPED:
            return self._typed_constant(token)
        args: list[Expr] = []
        zone = "UTC"
        while self._if(")") is None:
            if args:
                self._expect(",")
            if name in ("hour", "weekday") and args and self._seen.text == "tz" and self._after().text == "=":
                zone = self._zone()
                continue
            args.append(self._choice())
        wanted = 3 if name == "between" else _ARITY.get(name)
        if (wanted is not None and len(args) != wanted) or not args:
            count = "at least 1" if wanted is None else wanted
            raise self._fails(token, f"{name} takes {count}, seen {len(args)}")
        if name == "between":
            low = self._joined("ge", token, args[0], args[1])
            return self._joined("and", token, low, self._joined("le", token, args[0], args[2]))
        if name in COMPARISONS:
            return self._joined(name, token, args[0], args[1])
        return self._typed(token, lambda: call(name, *args, tz=zone))

    def _zone(self) -> str:
        """Of `tz=Europe/Berlin` or `tz="Europe/Berlin"`, up to the parenthesis."""
        self._take(), self._take()
        if self._seen.kind == "text":
            return self._string(self._take())
        words = []
        while self._seen.text != ")" and self._seen.kind != "end":
            words.append(self._take().text)
        return "".join(words)

    def _typed_constant(self, token: _Token) -> Expr:
        """decimal("12.50"), duration("30d"), timestamp("2026-11-21T10:00:00Z")."""
        said = self._take()
        if said.kind != "text":
            raise self._fails(said, f"{token.text} takes a text in quotes", f'write {token.text}("...")')
        self._expect(")")
        text = self._string(said)
        return self._typed(said, lambda: _constant(token.text, text))

    def _unary(self, op: str, token: _Token, value: Expr) -> Expr:
        return self._typed(token, lambda: call(op, value))

    def _joined(self, op: str, token: _Token, left: Expr, right: Expr) -> Expr:
        if op in COMPARISONS:
            return self._typed(token, lambda: call(op, _beside(left, right.type), _beside(right, left.type)))
        return self._typed(token, lambda: call(op, left, right))


def _constant(kind: str, text: str) -> Literal:
    match kind:
        case "timestamp":
            return Literal(int(instant(text)), schema.timestamp)
        case "duration":
            return Literal(Duration.parse(text).micros, schema.duration)
    try:
        value = decimal.Decimal(text)
        sign, digits, exponent = value.as_tuple()
    except decimal.InvalidOperation as error:
        raise InputError("HR-0352", f"not a decimal: {text!r}") from error
    scale = max(0, -exponent) if isinstance(exponent, int) else DECIMAL_PRECISION_MAX + 1
    if scale > DECIMAL_PRECISION_MAX or value.adjusted() >= DECIMAL_PRECISION_MAX:
        raise InputError("HR-0352", f"not a decimal of {DECIMAL_PRECISION_MAX} digits: {text!r}")
    units = int(value.scaleb(scale))
    return Literal(units, schema.decimal(max(len(str(abs(units))), scale, 1), scale))


def _beside(value: Expr, type: DataType) -> Expr:
    """A constant in the type of what it is compared with, where it says the same there; else as it is."""
    if not isinstance(value, Literal) or value.type == type:
        return value
    if isinstance(value.value, str) and type.kind in (Kind.TIMESTAMP, Kind.DURATION):
        return _constant(type.kind.value, value.value)
    if value.type.kind is Kind.DECIMAL and type.kind is Kind.DECIMAL and isinstance(value.value, int):
        units, rest = divmod(value.value * 10**type.scale, 10**value.type.scale)
        if rest == 0 and abs(units) < 10**type.precision:
            return Literal(units, type)
    return value
