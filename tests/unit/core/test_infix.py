"""Expressions in words: signs, names, and no parentheses that say nothing."""

from __future__ import annotations

import pytest

import headrace as hr
from headrace.core.expr import Operand, to_expr
from headrace.core.infix import infix

t = hr.Topic(
    "t",
    key="id",
    fields={"id": hr.int64, "amount": hr.decimal(9, 2), "items": hr.int64, "new": hr.boolean, "channel": hr.string},
)


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ((t.amount + t.items) * 2 > 3, "(amount + items) × 2 > 3"),
        (t.amount - (t.items - 1) > 0, "amount - (items - 1) > 0"),
        (t.amount - t.items - 1 > 0, "amount - items - 1 > 0"),
        (~((t.amount > 1) | (t.items > 2)), "not (amount > 1 or items > 2)"),
        ((t.amount > 1) & ((t.items > 2) | t.new), "amount > 1 and (items > 2 or new)"),
        ((t.amount > 1) & (t.items > 2) | t.new, "amount > 1 and items > 2 or new"),
        (t.channel == "web", "channel = 'web'"),
        (t.new == True, "new = true"),  # noqa: E712  # a literal is what is shown
        (t.items.is_null(), "items is null"),
        (t.items.is_not_null(), "items is not null"),
        (hr.coalesce(t.items, 0) >= 1_000, "coalesce(items, 0) ≥ 1,000"),
        ((t.amount / t.items).named("each") > 2.5, "each > 2.5"),
        (hr.score > 0.9, "score > 0.9"),
    ],
)
def test_an_expression_is_said_as_it_is_written(expr: Operand, said: str) -> None:
    assert infix(to_expr(expr)) == said
