"""Rules and values in the words of whoever reads a report: conditions as one writes them, durations in days. Pure.

The one idea: a definition's canonical text is for machines, and says everything; here names stand for what they name.
"""

from __future__ import annotations

import json

from headrace.core.infix import infix
from headrace.core.schema import Kind
from headrace.decisions.define import Decision, Rule
from headrace.decisions.explain import Shown
from headrace.runtime.definitions import Definitions

DAY_MICROS = 86_400_000_000


def rule_words(decision: Decision, rule: Rule) -> str:
    """What it decides, when, and which reasons it gives."""
    said = rule.outcome.value
    if rule.condition is not None:
        said += f" if {infix(rule.condition)}"
    if rule.segment is not None:
        said += f", for requests where {infix(rule.segment)}"
    model = decision.told_by(rule)
    told = [*rule.codes, *([] if model is None else [f"the reasons of {model.name}"])]
    return f"{said} ({', '.join(told)})" if told else said


def durations_of(definitions: Definitions) -> frozenset[str]:
    """Features and inputs that are durations, by the names under which values are shown."""
    features = {
        f"{view.name}.{feature.name}"
        for view in definitions.views.values()
        for feature in view.features
        if feature.type.kind is Kind.DURATION
    }
    models = definitions.models.values()
    return frozenset(features | {i.name for model in models for i in model.inputs if i.type.kind is Kind.DURATION})


def value_words(value: Shown, *, duration: bool = False) -> str:
    """Decimals and texts as they are, numbers no longer than a person reads, durations in days, hours or seconds."""
    match value:
        case None:
            return "none"
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() if duration:
            return duration_words(value)
        case float():
            return f"{value:,.6g}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def figure_words(value: float | None, *, duration: bool) -> str:
    """A difference; nothing where there is none."""
    if value is None:
        return ""
    return duration_words(value) if duration else f"{value:,.2f}"


def duration_words(micros: float) -> str:
    for unit, size in (("d", DAY_MICROS), ("h", DAY_MICROS // 24), ("min", 60_000_000)):
        if abs(micros) >= size:
            return f"{micros / size:,.1f} {unit}"
    return f"{micros / 1e6:,.1f} s"
