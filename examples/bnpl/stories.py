"""Decisions from end to end, as parts of the report's page: what was asked, known, scored, ruled and told. Pure.

The one idea: all of it is in the explanation that `headrace decisions explain` prints; what is long is folded away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from findings import Explained
from markup import escape, kind_words, money, table
from wording import value_words

from headrace.decisions.explain import Contribution, Explanation, ModelSeen, ViewSeen

SHARES_MAX = 10  # inputs of a model that are shown


def story(one: Explained, *, rules: Sequence[str], durations: Collection[str]) -> str:
    """One decision. rules: of the decision, in words. durations: the names of values that are."""
    return f'<div class="card story">{"".join(_story(one, rules, durations))}</div>'


def _story(one: Explained, rules: Sequence[str], durations: Collection[str]) -> Iterator[str]:
    said, case = one.said, one.case
    yield (
        f'<h3>{escape(one.why)}: application {case.application:,} <span class="badge {escape(said.outcome)}">'
        f"{escape(said.outcome)}</span></h3>"
    )
    segments = ", ".join(each.replace("_", " ") for each in case.segments)
    yield (
        f"<p>{money(case.cents)} ({escape(segments)}) at {escape(_moment(said.t))}; in truth: "
        f"{escape(kind_words(case.kind))}. Answered in {case.told.taken * 1e3:.1f} ms as "
        f"<code>{escape(said.decision_id)}</code>.</p>"
    )
    yield "<h3>What the customer is told</h3>"
    yield from _told(said)
    for model in said.models:
        yield from _model(model, durations)
    yield "<h3>The rules, in order</h3>"
    yield from _rules(said, rules)
    for other in said.beside:
        why = f", for {', '.join(other.reasons)}" if other.reasons else ""
        yield f"<p>Beside it, {escape(other.name)} would have said <b>{escape(other.outcome)}</b>{escape(why)}.</p>"
    yield "<h3>What was known</h3>"
    fields = {} if said.request is None else said.request
    yield _folded("the request", table((), [(name, value_words(value)) for name, value in fields.items()]))
    for view in said.views:
        yield _view(view, durations)
    yield f"<p class=quiet>Proof: {escape(said.replay)}."
    yield "" if said.chain is None else f" Its link in the chain: <code>{escape(said.chain)}</code>."
    yield "</p>"


def _told(said: Explanation) -> Iterator[str]:
    if not said.reasons:
        yield "<p>Approved, so no reason is given.</p>" if said.outcome == "approve" else "<p>No reason was given.</p>"
        return
    yield "<ol>"
    for told in said.reasons:
        texts = "".join(f'<br><span lang="{escape(k)}">{escape(text)}</span>' for k, text in told.texts.items())
        yield f"<li><code>{escape(told.code)}</code>{texts}</li>"
    yield "</ol>"


def _model(model: ModelSeen, durations: Collection[str]) -> Iterator[str]:
    score = "none" if model.score is None else f"{model.score:.4f}"
    yield f"<h3>Model {escape(model.name)}: score {score}</h3>"
    if model.base is None or not model.contributions:
        yield "<p class=quiet>What each input contributed cannot be said.</p>"
        return
    shown = model.contributions[:SHARES_MAX]
    most = max(abs(each.share) for each in shown) or 1.0
    rest = sum(each.share for each in model.contributions[SHARES_MAX:])
    yield (
        f"<p class=quiet>What each input added to the margin, from {model.base:+.3f}; to the right it raised the "
        "score. "
        f"{max(0, len(model.contributions) - SHARES_MAX)} more together: {rest:+.3f}.</p>"
    )
    yield '<div class="scroll"><table>'
    for each in shown:
        yield _contribution(each, most, durations)
    yield "</table></div>"


def _contribution(each: Contribution, most: float, durations: Collection[str]) -> str:
    width = 50 * abs(each.share) / most
    side, style = ("left:50%", "decline") if each.share >= 0 else ("right:50%", "approve")
    return (
        f"<tr><td class=number>{each.share:+.3f}</td>"
        f'<td class="both"><span class="either"><i class="{style}" style="{side};width:{width:.1f}%"></i></span></td>'
        f"<td>{escape(each.input)} = {escape(value_words(each.value, duration=each.input in durations))}</td>"
        f"<td><code>{escape(each.code or '')}</code></td></tr>"
    )


def _rules(said: Explanation, rules: Sequence[str]) -> Iterator[str]:
    """rules: in words; of a challenger that answered they are as the explanation has them."""
    yield '<div class="scroll"><table>'
    for rule in said.rules:
        words = rules[rule.index] if said.arm is None and len(rules) == len(said.rules) else rule.said
        marked = " class=decided" if rule.decided else ""
        yield (
            f"<tr{marked}><td class=number>{rule.index + 1}</td><td class=words>{escape(words)}</td>"
            f"<td>{escape(rule.standing)}</td></tr>"
        )
    yield "</table></div>"


def _view(view: ViewSeen, durations: Collection[str]) -> str:
    entity = ", ".join(f"{name} {value_words(value)}" for name, value in view.entity.items())
    count = "" if view.events_count is None else f", {view.events_count:,} event{'' if view.events_count == 1 else 's'}"
    values = table(
        ("feature", "value", ""),
        [
            (each.name, value_words(each.value, duration=f"{view.name}.{each.name}" in durations), each.why)
            for each in view.features
        ],
    )
    names = list(dict.fromkeys(name for event in view.events for name in event.fields))
    events = table(
        ("time", "topic", *names),
        [
            (
                _moment(each.event_time),
                each.topic,
                *(value_words(each.fields[n]) if n in each.fields else "" for n in names),
            )
            for each in view.events
        ],
    )
    newest = f"<p class=quiet>The newest of its events:</p>{events}" if view.events else ""
    return _folded(f"{view.name} of {entity}{count}", f'<div class="scroll">{values}{newest}</div>')


def _folded(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _moment(text: str) -> str:
    """ISO 8601 to the second."""
    return text[:19].replace("T", " ") + " UTC"
