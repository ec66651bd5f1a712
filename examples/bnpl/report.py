"""The run as one HTML page: report.html with the numbers, pictures and tables of findings.py in it. Writes the file.

The one idea: the page needs nothing but itself: no script, no font, no link to elsewhere; whatever came from data is
escaped. What the page says in words stands in report.html, what it shows is made here, in charts.py and in stories.py.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

import charts
import numpy as np
from findings import DEFAULT, FRAUD_KINDS, HONEST, KINDS, OUTCOMES, SEGMENTS, Case, Findings
from markup import card, day, escape, kind_words, legend, money, share, table
from steps import DECISION, MODELS, TRAINED_AT
from stories import story
from wording import figure_words

TEMPLATE = Path(__file__).resolve().parent / "report.html"
SEGMENT_TITLES = {"category": "by what the merchant sells", "channel": "by channel", "file": "by credit file"}


def write_report(found: Findings, path: Path, *, project: Path | None) -> None:
    """The page. project: the folder that `headrace --project` takes; None where it goes when the run ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(found, project), encoding="utf-8")


def page(found: Findings, project: Path | None) -> str:
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title="A lender's checkout, decided and computed again",
        summary=_summary(found),
        circumstances=_circumstances(found),
        tiles="\n".join(_tiles(found)),
        outcomes="\n".join(_outcomes(found)),
        truth="\n".join(_truth(found)),
        trained_at=day(TRAINED_AT),
        models="\n".join(_models(found)),
        rules=_rules(found),
        beside="\n".join(_beside(found)),
        reasons=_reasons(found),
        serving="\n".join(_serving(found)),
        explained=_explained(found),
        late=_late(found),
        hand=_hand(found, project),
    )


# --- the head ---


def _summary(found: Findings) -> str:
    way = (
        "over HTTP, each durable before it was told" if found.served else "in process, each durable before it was told"
    )
    if not found.cases:
        return "No application was decided."
    equal = found.replayed.mismatched == 0
    again = "every one to the same bits" if equal else f"{found.replayed.mismatched:,} of them with another result"
    return (
        f"{len(found.cases):,} applications of {day(found.cases[0].at)} to {day(found.cases[-1].at)} were decided "
        f"{way}. Afterwards all were computed again from the log, {again}."
    )


def _circumstances(found: Findings) -> str:
    options = found.options
    said = [
        f"A world from seed {options.seed} at scale {options.scale:g}: {found.events:,} events, "
        f"{found.imported:,} of them imported as history, {found.decided.events:,} appended between the decisions",
        "drift after five months" if options.drift else "no drift",
        "36 hours of late reports" if options.late_incident else "no late reports",
    ]
    return "; ".join(said) + "."


def _tiles(found: Findings) -> Iterator[str]:
    count = len(found.cases)
    outcomes = {outcome: found.count(outcome=outcome) for outcome in OUTCOMES}
    yield _tile(f"{count:,}", "decided", f"{found.decided.events:,} other events between them")
    yield _tile(
        share(outcomes["approve"], count),
        "approved",
        f"{outcomes['review']:,} to review, {outcomes['decline']:,} declined",
    )
    frauds = [case for case in found.cases if case.kind in FRAUD_KINDS]
    stopped = [case for case in frauds if case.told.outcome != "approve"]
    yield _tile(
        f"{len(stopped):,} of {len(frauds):,}",
        "frauds not approved",
        f"{money(sum(c.cents for c in stopped))} of {money(sum(c.cents for c in frauds))} in amounts",
    )
    honest = found.count(kind=HONEST)
    turned = found.count(kind=HONEST, outcome="decline")
    yield _tile(share(turned, honest), "of the honest declined", f"{turned:,} of {honest:,} applications")
    if count:
        p50, p99 = np.percentile(found.milliseconds, (50, 99))
        yield _tile(f"{p99:.1f} ms", "for 99 of 100 answers", f"{p50:.1f} ms for half of them, durable by then")
    wrong = " wrong" if found.replayed.mismatched else ""
    yield _tile(
        f'<span class="figure{wrong}">{found.replayed.mismatched:,}</span>',
        "mismatched",
        f"of {found.replayed.compared:,} computed again",
    )


def _tile(figure: str, what: str, beside: str) -> str:
    return f'<div class="tile"><b>{figure}</b>{escape(what)}<span class="sub">{escape(beside)}</span></div>'


# --- what was decided ---


def _outcomes(found: Findings) -> Iterator[str]:
    refused = charts.outcomes_over_time("Not approved, over time", found.cases, OUTCOMES[1:])
    over_time = card(charts.outcomes_over_time("Outcomes over time", found.cases))
    yield f'<div class="column">{over_time}{card(refused)}</div>'
    segments = _segments(found.cases)
    yield f'<div class="card double"><h3>Outcomes by segment</h3><div class="scroll">{segments}</div></div>'


def _segments(cases: Sequence[Case]) -> str:
    rows = [
        "<thead><tr><th>segment</th><th class=number>decided</th><th class=share>outcomes</th>"
        "<th class=number>review</th><th class=number>decline</th><th class=number>frauds</th></tr></thead>"
    ]
    for place, segment in enumerate(SEGMENTS):
        rows.append(f'<tbody class="group"><tr><th colspan="6">{escape(SEGMENT_TITLES[segment])}</th></tr>')
        for name, _ in Counter(case.segments[place] for case in cases).most_common():
            chosen = [case for case in cases if case.segments[place] == name]
            counts = Counter(case.told.outcome for case in chosen)
            rows.append(
                f"<tr><td>{escape(name.replace('_', ' '))}</td><td class=number>{len(chosen):,}</td>"
                f"<td class=share>{_bar(counts)}</td><td class=number>{share(counts['review'], len(chosen))}</td>"
                f"<td class=number>{share(counts['decline'], len(chosen))}</td>"
                f"<td class=number>{sum(case.kind in FRAUD_KINDS for case in chosen):,}</td></tr>"
            )
        rows.append("</tbody>")
    return f"<table>{''.join(rows)}</table>"


def _bar(counts: Counter[str]) -> str:
    total = sum(counts.values())
    pieces = [
        f'<i class="{outcome}" style="width:{100 * counts[outcome] / total:.2f}%"></i>'
        for outcome in OUTCOMES
        if counts[outcome]
    ]
    return f'<span class="bar">{"".join(pieces)}</span>'


def _truth(found: Findings) -> Iterator[str]:
    names = "".join(f"<th class=number>{outcome}</th>" for outcome in OUTCOMES)
    rows = [
        f"<thead><tr><th>in truth</th><th class=number>decided</th>{names}<th class=share>outcomes</th>"
        "<th class=number>amount approved</th><th class=number>of</th></tr></thead><tbody>"
    ]
    for kind in KINDS:
        chosen = list(found.chosen(kind=kind))
        counts = Counter(case.told.outcome for case in chosen)
        cells = "".join(
            f"<td class=number>{counts[outcome]:,}<br><small>{share(counts[outcome], len(chosen))}</small></td>"
            for outcome in OUTCOMES
        )
        approved = sum(case.cents for case in chosen if case.told.outcome == "approve")
        rows.append(
            f"<tr><td>{escape(kind_words(kind))}</td><td class=number>{len(chosen):,}</td>{cells}"
            f"<td class=share>{_bar(counts) if chosen else ''}</td><td class=number>{money(approved)}</td>"
            f"<td class=number>{money(sum(case.cents for case in chosen))}</td></tr>"
        )
    yield (
        '<div class="card wide"><h3>Decisions beside the truth</h3><div class="scroll">'
        f"<table>{''.join(rows)}</tbody></table></div></div>"
    )
    for model in MODELS:
        yield card(charts.scores_by_truth(found, model))
    yield _cuts_live(found)


def _cuts_live(found: Findings) -> str:
    """Of each kind, how many lie above the scores at which rules cut."""
    rows = []
    for model, cuts in found.thresholds.items():
        kinds = {"honest": (HONEST,), "the kind it is for": FRAUD_KINDS if model == "fraud" else (DEFAULT,)}
        for outcome, at in cuts:
            shares = []
            for wanted in kinds.values():
                chosen = [case.scores[model] for case in found.cases if case.kind in wanted and model in case.scores]
                shares.append(share(sum(score > at for score in chosen), len(chosen)))
            rows.append((f"{outcome}: {model}\u00a0>\u00a0{at:g}", *shares))
    shown = table(("where rules cut", "of the honest", "of its kind"), rows, numbers=(1, 2))
    return f'<div class="card"><h3>Above the scores where rules cut, live</h3><div class="scroll">{shown}</div></div>'


# --- the models ---


def _models(found: Findings) -> Iterator[str]:
    rows = (one.cells for one in found.trained)
    names = ("model", "trained on", "true", "left out, immature", "tested on", "true", "AUC", "average precision")
    yield f'<div class="card wide"><div class="scroll">{table(names, rows, numbers=range(1, 8))}</div></div>'
    yield card(charts.ranking(found.trained))
    yield card(charts.precision(found.trained))
    yield card(
        charts.calibrated(found.trained),
        "Each dot is half a power of ten of scores; its line is where the share may lie with 95 % confidence.",
    )
    for one in found.trained:
        yield card(charts.tested_scores(one))
    yield _cuts_tested(found)


def _cuts_tested(found: Findings) -> str:
    """What each score at which a rule cuts would flag among the tested rows."""
    rows = []
    for one in found.trained:
        for _, at in found.thresholds.get(one.name, ()):
            flagged = one.scores > at
            hits, count = int(one.truths[flagged].sum()), int(flagged.sum())
            rows.append(
                (f"{one.name}\u00a0>\u00a0{at:g}", f"{count:,}", share(hits, count), share(hits, one.tested.positives))
            )
    shown = table(("score", "flagged", "of them true", "of the true, found"), rows, numbers=(1, 2, 3))
    return f'<div class="card"><h3>At these scores, on matured labels</h3><div class="scroll">{shown}</div></div>'


# --- rules and reasons ---


def _rules(found: Findings) -> str:
    rows = []
    for place, words in enumerate(found.rules):
        decided = [case for case in found.cases if case.rule == place]
        frauds = sum(case.kind in FRAUD_KINDS for case in decided)
        defaults = sum(case.kind == DEFAULT for case in decided)
        figures = (len(decided), len(decided) - frauds - defaults, defaults, frauds)
        rows.append((f"{place + 1}", words, *(f"{figure:,}" for figure in figures)))
    return table(("", "rule", "decided", "honest", "will default", "frauds"), rows, numbers=(0, 2, 3, 4, 5))


def _beside(found: Findings) -> Iterator[str]:
    """What challengers would have decided instead."""
    for name in dict.fromkeys(name for case in found.cases for name in case.beside):
        rows = []
        for was in OUTCOMES:
            for now in OUTCOMES:
                chosen = [c for c in found.cases if (c.told.outcome, c.beside.get(name)) == (was, now)]
                if was != now and chosen:
                    frauds = sum(c.kind in FRAUD_KINDS for c in chosen)
                    defaults = sum(c.kind == DEFAULT for c in chosen)
                    figures = (len(chosen), len(chosen) - frauds - defaults, defaults, frauds)
                    amount = money(sum(c.cents for c in chosen))
                    rows.append((was, now, *(f"{figure:,}" for figure in figures), amount))
        names = ("served", f"by {name}", "decisions", "honest", "will default", "frauds", "amount")
        shown = table(names, rows, numbers=range(2, 7)) if rows else "<p>Every decision would have been the same.</p>"
        yield (
            f"<h3>Beside it: {escape(name)}</h3><p>A second policy was asked at the same points, recorded, and told to "
            f'nobody. Where it differs:</p><div class="scroll">{shown}</div>'
        )


def _reasons(found: Findings) -> str:
    if not found.reasons:
        return '<p class="quiet">No decision gave a reason.</p>'
    most = found.reasons[0][1]
    rows = []
    for code, count in found.reasons:
        outcomes = Counter(case.told.outcome for case in found.cases if code in case.told.reasons)
        texts = "".join(
            f'<span lang="{escape(language)}">{escape(text)}</span>'
            for language, text in found.texts.get(code, {}).items()
        )
        bar = f'<div style="width:{100 * count / most:.1f}%">{_narrow(_bar(outcomes))}</div>'
        rows.append(
            f"<tr><td><code>{escape(code)}</code></td><td class=number>{count:,}</td>"
            f'<td class=share>{bar}</td><td class="words">{texts}</td></tr>'
        )
    return (
        f"{legend(charts.OUTCOME_KEYS[1:])}<table><thead><tr><th>reason</th><th class=number>given</th>"
        f"<th class=share></th><th>what it says</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _narrow(bar: str) -> str:
    """A bar that may be as short as its count says."""
    return bar.replace('class="bar"', 'class="bar" style="min-width:2px"')


# --- serving, decisions from end to end, late reports ---


def _serving(found: Findings) -> Iterator[str]:
    yield card(
        charts.latency(found.milliseconds),
        "As the caller measured it, one request after another, " + _way(found) + ".",
    )
    rows = [(f"{part:g} %", f"{np.percentile(found.milliseconds, part):.2f} ms") for part in (50, 90, 99, 99.9)]
    rows += [
        ("slowest", f"{found.milliseconds.max():.2f} ms"),
        ("all, with the events", f"{found.decided.taken:.1f} s"),
    ]
    yield (
        '<div class="card"><h3>Requests answered within</h3>'
        f"{table(('share of requests', 'time'), rows if found.cases else [], numbers=(1,))}</div>"
    )
    replayed = found.replayed
    wrong = "wrong" if replayed.mismatched else ""
    rows = [
        ("answers given", f"{len(found.decided.answers):,}"),
        ("recorded, equal to the answer", f"{len(found.cases):,}"),
        ("compared", f"{replayed.compared:,}"),
        ("mismatched", f"{replayed.mismatched:,}"),
        ("of other versions", f"{replayed.unknown:,}"),
        ("erased", f"{replayed.erased:,}"),
    ]
    yield (
        f'<div class="card {wrong}" id="replay"><h3>Computed again from the log</h3>{table((), rows, numbers=(1,))}'
        "<p class=quiet>Every feature, score, outcome, rule and reason, compared to the bit.</p></div>"
    )


def _way(found: Findings) -> str:
    return "over HTTP on one machine" if found.served else "in process"


def _explained(found: Findings) -> str:
    shown = [story(one, rules=found.rules, durations=found.durations) for one in found.explained]
    return "\n".join(shown) or '<p class="quiet">There is none to show.</p>'


def _late(found: Findings) -> str:
    if found.impacts is None:
        return (
            '<p class="quiet">Not in this run. <code>--late-incident</code> delays what payments, refunds and banks '
            "report within 36 hours, and this part then tells which inputs of which applications that changed.</p>"
        )
    if not found.impacts:
        return '<p class="quiet">The late reports would have changed no input of the model default.</p>'
    rows = (
        (
            one.feature,
            f"{one.differing:,}",
            f"{one.rows:,}",
            figure_words(one.mean, duration=one.feature in found.durations),
            figure_words(one.largest, duration=one.feature in found.durations),
        )
        for one in found.impacts
    )
    names = ("input of default", "applications it differs for", "of", "mean difference", "largest")
    return (
        "<p>What payments, refunds and banks reported within 36 hours came after these 36 hours. Decisions and "
        "training sets go by what was known at the time; had everything come at once, these inputs would have been "
        "others.</p>"
        f'<div class="scroll">{table(names, rows, numbers=range(1, 5))}</div>'
    )


def _hand(found: Findings, project: Path | None) -> str:
    if project is None:
        return '<p class="quiet">The project of this run is gone; with <code>--out</code> it stays.</p>'
    folder = project.relative_to(Path.cwd()) if project.is_relative_to(Path.cwd()) else project
    headrace = f".venv/bin/headrace --project {shlex.quote(str(folder))}"
    one = shlex.quote(found.explained[0].case.told.decision_id if found.explained else f"{DECISION}/1/0/0")
    steps = (
        ("what was decided last, and of which scores", f"decisions list {DECISION} --limit 10"),
        ("one decision, in words and as a page", f"decisions explain {one} --page explained.html"),
        ("all of them computed again", f"decisions replay {DECISION}"),
        ("whether a record was changed, dropped or added", f"decisions verify {DECISION}"),
        (
            "another policy on the same requests: edit definitions.py there, then",
            f"decisions whatif {DECISION} --by channel",
        ),
        ("the models' artifacts", "models list"),
        ("what is in the log", "topics list"),
        (
            "the server; with the token that this prints it is asked as in docs/guides/serving.md",
            "tokens create --name me --scope decisions:decide,decisions:read",
        ),
        ("", "serve --port 8000"),
    )
    lines = [f"# {why}\n{headrace} {command}" if why else f"{headrace} {command}" for why, command in steps]
    before = "<p>The project that made this page is still there. From the repository's root:</p>"
    return f"{before}<pre>{escape(chr(10).join(lines))}</pre>"
