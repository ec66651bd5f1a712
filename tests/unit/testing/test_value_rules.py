"""SEMANTICS 3: what the value is, exact and rounded once. Each rule with its concrete events."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from headrace.core.aggregate import Reason
from headrace.core.errors import DefinitionError
from headrace.core.expr import Expr, Operand, coalesce, exp, hour, if_else, literal, sqrt, weekday
from headrace.features.define import (
    Aggregate,
    count,
    distinct,
    first,
    last,
    last_n,
    lookup,
    max,
    mean,
    min,
    rate,
    std,
    sum,
    time_since_first,
    time_since_last,
    variance,
)
from headrace.testing.expressions import evaluate
from headrace.testing.oracles import Value, rounded
from tests.unit.testing.sequences import DAY, HOUR, answer, ask, paid, payments

T = 1_000
TINY = 5e-324  # the smallest subnormal
HUGE = 1.7e308


def over(asked: Aggregate, field: str, given: Sequence[object], **more: object) -> Value:
    """The aggregate of these values, in the order in which they happened."""
    return ask(asked.lifetime(), [paid(i, i, **{field: v}) for i, v in enumerate(given)], T, **more)


def why(asked: Aggregate, field: str, given: Sequence[object], **more: object) -> tuple[Value, Reason]:
    return answer(asked.lifetime(), [paid(i, i, **{field: v}) for i, v in enumerate(given)], T, **more)


def test_3_1_the_order_of_arrival_does_not_show() -> None:
    events = [paid(i % 3, i, number=i * i, size=10.0 ** (i % 7)) for i in range(4)]
    for asked in (sum(payments.size), std(payments.size), last_n(payments.number, 3)):
        orders = [[replace(e, offset=i) for i, e in enumerate(order)] for order in itertools.permutations(events)]
        assert len({str(ask(asked.lifetime(), order, T)) for order in orders}) == 1


def test_3_2_integers_and_decimals_are_summed_exactly() -> None:
    assert over(sum(payments.number), "number", [2**62, 2**62 - 1, -1, 1]) == 2**63 - 1
    assert over(sum(payments.amount), "amount", [10**12 - 1] * 3) == 3 * (10**12 - 1)
    assert over(sum(payments.good), "good", [True, False, True, None]) == 2


def test_3_2_a_sum_outside_int64_is_null_with_the_reason_overflow() -> None:
    assert why(sum(payments.number), "number", [2**63 - 1, 1]) == (None, Reason.OVERFLOW)
    assert why(sum(payments.number), "number", [-(2**63), -1]) == (None, Reason.OVERFLOW)
    assert why(sum(payments.number), "number", [2**63 - 1, 2**63 - 1, -(2**63), -(2**63)]) == (-2, Reason.VALUE)


def test_3_3_floats_are_summed_exactly_and_rounded_once() -> None:
    assert over(sum(payments.size), "size", [0.1] * 10) == 1.0
    assert over(sum(payments.size), "size", [1e100, 1.0, -1e100]) == 1.0
    assert over(sum(payments.size), "size", [HUGE, HUGE, -HUGE, -HUGE, TINY]) == TINY
    assert over(sum(payments.size), "size", [1.0, 2.0**-53, TINY]) == 1.0 + 2.0**-52, "just above the tie"
    assert over(sum(payments.size), "size", [1.0, 2.0**-53]) == 1.0, "the tie goes to even"


def test_3_3_a_result_outside_the_range_is_null_with_the_reason_overflow() -> None:
    assert why(sum(payments.size), "size", [HUGE, HUGE]) == (None, Reason.OVERFLOW)
    assert why(mean(payments.size), "size", [HUGE, HUGE]) == (HUGE, Reason.VALUE), "the exact sum is no result"
    assert why(variance(payments.size), "size", [HUGE, -HUGE]) == (None, Reason.OVERFLOW)
    assert why(std(payments.size), "size", [HUGE, -HUGE]) == (None, Reason.OVERFLOW), "the root of the rounded variance"


@pytest.mark.parametrize("asked", [sum(payments.size), min(payments.size), max(payments.size), last(payments.size)])
def test_3_3_no_value_is_minus_zero(asked: Aggregate) -> None:
    found = over(asked, "size", [-0.0])
    assert math.copysign(1.0, found) == 1.0


def test_3_3_a_result_that_rounds_to_zero_from_below_is_plus_zero() -> None:
    found = over(mean(payments.size), "size", [-TINY, 0.0, 0.0])
    assert found == 0.0
    assert math.copysign(1.0, found) == 1.0
    assert over(distinct(payments.size), "size", [0.0, -0.0, 1.0]) == 2


def test_3_4_a_mean_is_one_division_of_the_exact_sum() -> None:
    assert over(mean(payments.number), "number", [2**53 + 1, 0]) == float(Fraction(2**53 + 1, 2))
    assert over(mean(payments.amount), "amount", [10, 10, 11]) == float(Fraction(31, 300)), "units / (count * 10^scale)"
    assert over(mean(payments.size), "size", [0.1, 0.2]) == float((Fraction(0.1) + Fraction(0.2)) / 2)
    assert over(rate(payments.good), "good", [True, False, None, False]) == 1 / 3


def test_3_4_a_variance_is_rounded_once_from_the_exact_rational() -> None:
    assert over(variance(payments.number), "number", [1, 2, 4]) == float(Fraction(14, 9))
    assert over(variance(payments.number, sample=True), "number", [1, 2, 4]) == float(Fraction(7, 3))
    assert over(variance(payments.amount), "amount", [1, 2, 4]) == float(Fraction(14, 90_000))
    assert over(variance(payments.number), "number", [10**15 + 1, 10**15 + 2, 10**15 + 4]) == float(Fraction(14, 9))
    assert over(variance(payments.size), "size", [1e16, 1e16 + 2, 1e16 + 6]) == float(Fraction(56, 9))
    assert over(variance(payments.size), "size", [0.1, 0.1, 0.1]) == 0.0


def test_3_4_a_standard_deviation_is_the_root_of_the_rounded_variance() -> None:
    assert over(std(payments.number), "number", [1, 2, 4]) == math.sqrt(float(Fraction(14, 9)))
    assert over(std(payments.amount, sample=True), "amount", [10, 20]) == math.sqrt(float(Fraction(50, 10_000)))


def test_3_4_a_sample_needs_two() -> None:
    assert why(variance(payments.number, sample=True), "number", [5]) == (None, Reason.EMPTY)
    assert why(std(payments.number, sample=True), "number", [5, None]) == (None, Reason.EMPTY)
    assert why(variance(payments.number), "number", [5]) == (0.0, Reason.VALUE)


def test_3_4_time_since_is_microseconds() -> None:
    events = [paid(1, 1), paid(T - 7, 2)]
    assert ask(time_since_last(), events, T) == 7
    assert ask(time_since_first(), events, T) == T - 1
    assert ask(time_since_last(where=payments.channel == "web"), events, T) is None


def test_3_5_empty_is_zero_for_a_count_and_null_for_the_rest() -> None:
    assert why(count(), "number", []) == (0, Reason.EMPTY)
    for asked in (
        sum(payments.number), mean(payments.number), min(payments.number), variance(payments.number),
        std(payments.size), first(payments.number), last(payments.number), last_n(payments.number, 2),
        distinct(payments.number), rate(payments.good), time_since_last(), time_since_first(), lookup(payments.number),
    ):  # fmt: skip
        assert why(asked, "number", []) == (None, Reason.EMPTY)


def test_3_5_empty_says_what_an_empty_window_is() -> None:
    assert answer(mean(payments.number).over("1d", empty=0), [], T) == (0.0, Reason.EMPTY)
    assert answer(sum(payments.amount).over("1d", empty=1.5), [], T) == (150, Reason.EMPTY)
    assert answer(sum(payments.number).over("1d", empty=0), [paid(1, number=None)], T) == (0, Reason.EMPTY)
    assert answer(mean(payments.size).over("1d", empty=0), [paid(T, 1, size=2.0)], T) == (2.0, Reason.VALUE)


def test_3_5_empty_does_not_stand_for_an_overflow() -> None:
    asked = sum(payments.size).over("1d", empty=0)
    assert answer(asked, [paid(1, 1, size=HUGE), paid(2, 2, size=HUGE)], T) == (None, Reason.OVERFLOW)


def test_3_5_null_inputs_are_skipped() -> None:
    given = [None, 3, None, 5, None]
    assert over(count(), "number", given) == 5, "a count counts events"
    assert over(mean(payments.number), "number", given) == 4.0
    assert over(first(payments.number), "number", given) == 3
    assert over(last(payments.number), "number", given) == 5
    assert over(last_n(payments.number, 3), "number", given) == [3, 5]
    assert over(distinct(payments.number), "number", given) == 2
    assert over(lookup(payments.number), "number", given) is None
    assert why(max(payments.number), "number", [None, None]) == (None, Reason.EMPTY)


def test_6_more_different_values_than_the_limit_are_null_with_the_reason_limit() -> None:
    events = [paid(i, i, number=i % 4) for i in range(9)]
    assert answer(distinct(payments.number).lifetime(), events, T, max_distinct=4) == (4, Reason.VALUE)
    assert answer(distinct(payments.number).lifetime(), events, T, max_distinct=3) == (None, Reason.LIMIT)


# --- expressions (SEMANTICS 3.4, 3.5) ---


def of(expr: Operand, **fields: object) -> object:
    assert isinstance(expr, Expr)
    return evaluate(expr, lambda r: fields.get(r.name))  # type: ignore[arg-type, return-value]  # test values


def test_3_4_expressions_take_decimals_as_the_nearest_double() -> None:
    assert of(payments.amount * 3, amount=10) == 0.1 * 3
    assert of(payments.amount / payments.number, amount=100, number=3) == 1.0 / 3
    assert of(payments.amount > 0.1, amount=10) is False, "0.10 is the same double as 0.1"


def test_3_4_expressions_are_operations_as_written() -> None:
    assert of((payments.size + 0.2) + 0.3, size=0.1) == (0.1 + 0.2) + 0.3
    assert of(payments.size + (literal(0.2) + 0.3), size=0.1) == 0.1 + (0.2 + 0.3)
    assert of(payments.number + 1, number=2**53) == 2.0**53, "integers as doubles, too"
    assert of(-payments.number, number=2**53 + 1) == -(2**53) - 1, "a negation keeps them"
    assert of(-payments.number, number=-(2**63)) is None


def test_3_4_comparisons_of_one_type_are_exact_and_of_mixed_numbers_doubles() -> None:
    assert of(payments.number == 2**53, number=2**53 + 1) is False
    assert of(payments.number == payments.size, number=2**53 + 1, size=2.0**53) is True
    assert of(payments.amount == payments.amount, amount=7) is True
    assert of(payments.channel < "b", channel="a") is True


def test_3_5_null_is_neither_true_nor_false() -> None:
    good, web = payments.good, payments.channel == "web"
    assert [of(good & web, good=g, channel=c) for g in (True, False, None) for c in ("web", "x", None)] == [
        True, False, None, False, False, False, None, False, None,
    ]  # fmt: skip
    assert [of(good | web, good=g, channel=c) for g in (True, False, None) for c in ("web", "x", None)] == [
        True, True, True, True, False, None, True, None, None,
    ]  # fmt: skip
    assert of(~good) is None
    assert of(payments.size + 1) is None
    assert of(payments.size.is_null()) is True
    assert of(coalesce(payments.number, payments.size), size=2.5) == 2.5
    assert of(coalesce(payments.number, payments.size), number=2, size=2.5) == 2.0
    assert of(if_else(good, 1, 2)) == 2


def test_3_4_what_has_no_finite_result_is_null() -> None:
    assert of(payments.size / 0, size=1.0) is None
    assert of(payments.size * 10, size=HUGE) is None
    assert of(sqrt(payments.size), size=-1.0) is None
    assert math.copysign(1.0, of(payments.size * -1, size=0.0)) == 1.0  # type: ignore[arg-type]  # a float


def test_2_3_hour_and_weekday_are_of_the_zone() -> None:
    at = 2 * DAY + 23 * HOUR  # Saturday, 3 January 1970
    assert (of(hour(payments["at"]), at=at), of(weekday(payments["at"]), at=at)) == (23, 5)
    zoned = hour(payments["at"], tz="Europe/Berlin"), weekday(payments["at"], tz="Europe/Berlin")
    assert [of(z, at=at) for z in zoned] == [0, 6]


def test_3_4_the_oracle_does_not_repeat_pinned_functions() -> None:
    with pytest.raises(DefinitionError, match="HR-0140"):
        of(exp(payments.size), size=1.0)


def test_rounding_a_fraction_is_to_the_nearest_double() -> None:
    assert rounded(Fraction(TINY) / 2) == (0.0, Reason.VALUE), "a tie, to even"
    assert rounded(Fraction(TINY) * Fraction(3, 4)) == (TINY, Reason.VALUE)
    assert rounded(Fraction(2) ** 1024 - Fraction(2) ** 970) == (None, Reason.OVERFLOW)
    assert rounded(Fraction(2) ** 1024 - Fraction(2) ** 970 - 1) == (1.7976931348623157e308, Reason.VALUE)
