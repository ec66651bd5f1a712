"""An explanation in words for a terminal, and as one page for a file. Pure.

The one idea: both say the same in the same order. The page needs nothing but itself: no script, no image, no font, no
link; whatever came from outside is escaped.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from headrace.decisions.explain import BesideSeen, Contribution, Explanation, FeatureSeen, ModelSeen, Shown, ViewSeen

# --- words ---


def words(said: Explanation, *, language: str | None = None) -> str:
    """Some dozens of lines. language: of the reasons' texts; by default every language there is."""
    return "\n".join(_words(said, language))


def _words(said: Explanation, language: str | None) -> Iterator[str]:
    yield f"{said.decision_id}: {said.outcome}"
    yield f"  request {said.request_id}, at {said.t}, decided {said.decided_at}{_flags(said)}{_arm(said)}"
    yield _section("Reasons")
    for number, told in enumerate(said.reasons, 1):
        texts = {k: v for k, v in told.texts.items() if language in (None, k)}
        yield f"  {number}. {told.code}" + "".join(f"\n     {k}: {text}" for k, text in texts.items())
    if not said.reasons:
        yield "  none given"
    yield _section("Request")
    yield from _request(said)
    for view in said.views:
        yield _section(f"View {view.name}")
        yield from _view(view)
    for model in said.models:
        yield _section(_scored(said, model))
        yield from _score(model)
    yield _section("Rules")
    for rule in said.rules:
        yield f"  {'>' if rule.decided else ' '} {rule.index}. {rule.said}: {rule.standing}"
    if not said.rules:
        yield f"    rule {said.rule} decided; the definitions that decided are not at hand"
    if said.beside:
        yield _section("Beside it")
        yield from (f"  {_beside(one)}" for one in said.beside)
    yield _section("Proof")
    yield from (f"  {line}" for line in _proof(said))


def _section(title: str) -> str:
    return f"\n{title}"


def _flags(said: Explanation) -> str:
    return f" ({', '.join(said.flags)})" if said.flags else ""


def _arm(said: Explanation) -> str:
    return "" if said.arm is None else f", by challenger {said.arm}"


def _request(said: Explanation) -> Iterator[str]:
    if said.request is None:
        yield "  no longer in the log"
        return
    yield from (f"  {name} = {_text(value)}" for name, value in said.request.items())


def _view(view: ViewSeen) -> Iterator[str]:
    yield f"  {_whose(view)}"
    for feature in view.features:
        yield f"  {feature.name} = {_feature(feature)}"
    yield f"  {_seen(view)}"
    for event in view.events:
        fields = ", ".join(f"{name} {_text(value)}" for name, value in event.fields.items())
        yield f"    {event.event_time}  {event.topic} partition {event.partition} offset {event.offset}: {fields}"


def _score(model: ModelSeen) -> Iterator[str]:
    if model.base is None:
        yield "  what each input contributed cannot be said: the model is not at hand"
        return
    yield f"  base {model.base:+.4f}, and by input:"
    for one in model.contributions:
        yield f"  {one.share:+.4f}  {one.input} = {_text(one.value)}  {_code(one)}".rstrip()


def _proof(said: Explanation) -> Iterator[str]:
    yield said.replay
    for one in said.differences:
        yield f"{one.what}: recorded {one.recorded}, recomputed {one.recomputed}"
    if said.chain is None:
        yield "the record is of before there was a chain"
    else:
        holds = "is" if said.chain_holds else "is NOT"
        yield f"its link {said.chain} {holds} that of its fields and of {said.link_before}"
    yield f"version set {json.dumps(said.versions, ensure_ascii=False)}" + ("" if said.in_force else ", not at hand")


# --- what both say ---


def _text(value: Shown) -> str:
    return "null" if value is None else json.dumps(value, ensure_ascii=False)


def _feature(feature: FeatureSeen) -> str:
    return f"{_text(feature.value)} ({feature.why})" if feature.why else _text(feature.value)


def _whose(view: ViewSeen) -> str:
    entity = ", ".join(f"{name} = {_text(value)}" for name, value in view.entity.items())
    return f"of {entity or 'an entity that is not known'}, {view.staleness_us} us stale"


def _seen(view: ViewSeen) -> str:
    if view.absent is not None:
        return f"absent: {view.absent}"
    if view.events_count is None:
        return "its events were not looked up"
    since = ("" if view.since is None else f" after {view.since}") + f" up to {view.until}"
    shown = "" if len(view.events) == view.events_count else f", the newest {len(view.events)}"
    plural = "event" if view.events_count == 1 else "events"
    return f"{view.events_count:,} {plural}{since} beside the request{shown}" + (":" if view.events else "")


def _code(one: Contribution) -> str:
    return one.code or ""


def _scored(said: Explanation, model: ModelSeen) -> str:
    return f"Score {model.score!r}" + (f" of {model.name}" if len(said.models) > 1 else "")


def _beside(one: BesideSeen) -> str:
    scores = ", ".join(f"{name} {score!r}" for name, score in one.scores.items())
    return f"{one.name} would have answered {one.outcome}" + "".join(f" ({x})" for x in (*one.reasons, scores) if x)


# --- the page ---

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1c1e;
  background: #fff }
h1 { font-size: 1.35rem } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .15rem .6rem .15rem 0;
  vertical-align: top; overflow-wrap: anywhere } th { font-weight: 600; color: #555 }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.decided { font-weight: 700 } .quiet { color: #666 } .wrong { color: #a00; font-weight: 700 }
code { font-size: .9em } .bar { display: inline-block; height: .7em; background: #b8473a }
.bar.down { background: #3a78b8 }
@media (prefers-color-scheme: dark) { body { background: #161618; color: #e8e8ea } h2 { border-color: #444 }
  th, .quiet { color: #aaa } .wrong { color: #ff7a70 } }
""".strip()


def page(said: Explanation) -> str:
    """One HTML page, whole in itself."""
    return "\n".join(_page(said)) + "\n"


def _page(said: Explanation) -> Iterator[str]:
    title = f"{said.decision_id}: {said.outcome}"
    yield "<!doctype html>"
    language = next((language for told in said.reasons for language in told.texts), "en")
    yield f'<html lang="{_escape(language)}"><head><meta charset="utf-8"><title>{_escape(title)}</title>'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body>"
    yield f"<h1>{_escape(title)}</h1>"
    at = f"at {said.t}, decided {said.decided_at}{_flags(said)}{_arm(said)}"
    yield f"<p>Request <code>{_escape(said.request_id)}</code>, {_escape(at)}</p>"
    yield "<h2>Reasons</h2>"
    yield from _reasons_page(said)
    yield "<h2>Request</h2>"
    yield from _pairs(said.request) if said.request is not None else _quiet("no longer in the log")
    for view in said.views:
        yield f"<h2>View {_escape(view.name)}</h2>"
        yield from _view_page(view)
    for model in said.models:
        yield f"<h2>{_escape(_scored(said, model))}</h2>"
        yield from _score_page(model)
    yield "<h2>Rules</h2>"
    yield from _rules_page(said)
    if said.beside:
        yield "<h2>Beside it</h2><ul>"
        yield from (f"<li>{_escape(_beside(one))}</li>" for one in said.beside)
        yield "</ul>"
    yield "<h2>Proof</h2><ul>"
    for place, line in enumerate(_proof(said)):
        wrong = "DIFFERS" in line or "is NOT" in line or 0 < place <= len(said.differences)
        yield f"<li{' class=wrong' if wrong else ''}>{_escape(line)}</li>"
    yield "</ul></body></html>"


def _reasons_page(said: Explanation) -> Iterator[str]:
    if not said.reasons:
        yield from _quiet("none given")
        return
    yield "<ol>"
    for told in said.reasons:
        texts = "".join(
            f'<br><span lang="{_escape(language)}">{_escape(text)}</span>' for language, text in told.texts.items()
        )
        yield f"<li><code>{_escape(told.code)}</code>{texts}</li>"
    yield "</ol>"


def _view_page(view: ViewSeen) -> Iterator[str]:
    yield f"<p class=quiet>{_escape(_whose(view))}; cut <code>{_escape(json.dumps(view.cut))}</code></p>"
    yield from _table((), ([feature.name, _text(feature.value), feature.why] for feature in view.features))
    yield f"<p class=quiet>{_escape(_seen(view))}</p>"
    if view.events:
        names = list(dict.fromkeys(name for event in view.events for name in event.fields))
        yield from _table(
            ["time", "topic", "partition", "offset", *names],
            (
                [
                    event.event_time,
                    event.topic,
                    str(event.partition),
                    str(event.offset),
                    *(_text(event.fields[name]) if name in event.fields else "" for name in names),
                ]
                for event in view.events
            ),
        )


def _score_page(model: ModelSeen) -> Iterator[str]:
    if model.base is None:
        yield from _quiet("what each input contributed cannot be said: the model is not at hand")
        return
    most = max((abs(one.share) for one in model.contributions), default=0.0)
    yield f"<p class=quiet>base {model.base:+.4f}; what each input added to the model's margin:</p><table>"
    for one in model.contributions:
        width = 0 if most == 0 else round(12 * abs(one.share) / most, 2)
        bar = f'<span class="bar{" down" if one.share < 0 else ""}" style="width:{width}rem"></span>'
        yield (
            f"<tr><td class=number>{one.share:+.4f}</td><td>{bar}</td><td>{_escape(one.input)} = "
            f"{_escape(_text(one.value))}</td><td><code>{_escape(_code(one))}</code></td></tr>"
        )
    yield "</table>"


def _rules_page(said: Explanation) -> Iterator[str]:
    if not said.rules:
        yield from _quiet(f"rule {said.rule} decided; the definitions that decided are not at hand")
        return
    yield "<table>"
    for rule in said.rules:
        marked = " class=decided" if rule.decided else ""
        yield (
            f"<tr{marked}><td class=number>{rule.index}</td><td>{_escape(rule.said)}</td>"
            f"<td>{_escape(rule.standing)}</td></tr>"
        )
    yield "</table>"


def _pairs(fields: Mapping[str, Shown]) -> Iterator[str]:
    yield from _table((), ([name, _text(value)] for name, value in fields.items()))


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "<table>"
    if names:
        yield "<tr>" + "".join(f"<th>{_escape(name)}</th>" for name in names) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</table>"


def _quiet(text: str) -> Iterator[str]:
    yield f"<p class=quiet>{_escape(text)}</p>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
