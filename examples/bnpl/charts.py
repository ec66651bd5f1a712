"""The report's pictures: what each of them shows of a run. Pure.

The one idea: here numbers become bins, shares and curves; how that is drawn is said in pictures.py.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import numpy as np
from findings import DEFAULT, FRAUD_KINDS, HONEST, OUTCOMES, Case, Findings, calibration
from market import DAY, HOUR
from pictures import (
    Axis,
    Bar,
    Dot,
    Key,
    Line,
    Mark,
    Picture,
    Steps,
    Tick,
    dots,
    empty,
    histogram,
    lines,
    percent,
    powers,
    shares,
    stacked,
)
from steps import Trained

from headrace.models.evaluate import Floats, curve

BARS_MAX = 32
WIDTHS = (HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 28 * DAY)
SCORE_BINS = 24
LATENCY_BINS = 40

OUTCOME_KEYS = tuple(Key(name=name, style=name) for name in OUTCOMES)
MODEL_STYLES = {"fraud": "first", "default": "second"}


def outcomes_over_time(title: str, cases: Sequence[Case], shown: Sequence[str] = OUTCOMES) -> Picture:
    """Bars of equal width in time, as many as there is room for. shown: the outcomes that are drawn."""
    if not cases:
        return empty(title, "no application was decided")
    begin, end = cases[0].at, cases[-1].at
    width = next((w for w in WIDTHS if end // w - begin // w < BARS_MAX), WIDTHS[-1])
    counts = np.zeros((end // width - begin // width + 1, len(shown)), np.int64)
    for case in cases:
        if case.told.outcome in shown:
            counts[case.at // width - begin // width, shown.index(case.told.outcome)] += 1
    bars = [
        Bar(label=_moment((begin // width + i) * width, hours=width < DAY), counts=row.tolist())
        for i, row in enumerate(counts)
    ]
    span = f"{width // DAY} d" if width >= DAY else f"{width // HOUR} h"
    keys = [key for key in OUTCOME_KEYS if key.name in shown]
    return stacked(title, bars, keys, x_label=f"{span} a bar, UTC", y_label="applications")


def _moment(micros: int, *, hours: bool) -> str:
    at = dt.datetime.fromtimestamp(micros // 1_000_000, tz=dt.UTC)
    return f"{at.day} {at:%b}, {at.hour} h" if hours else f"{at.day} {at:%b}"


def scores_by_truth(found: Findings, model: str) -> Picture:
    """Of the decided applications: the score of those that were honest in truth, beside those that the model is for."""
    wanted = FRAUD_KINDS if model == "fraud" else (DEFAULT,)
    name = "fraud" if model == "fraud" else "will default"
    scores = {
        HONEST: [case.scores[model] for case in found.cases if case.kind == HONEST and model in case.scores],
        name: [case.scores[model] for case in found.cases if case.kind in wanted and model in case.scores],
    }
    title = f"Score of {model}, live, by the truth"
    if not all(scores.values()):
        return empty(title, f"{'no ' + name if scores[HONEST] else 'no such score'} among those decided")
    keys = {HONEST: "honest", name: MODEL_STYLES.get(model, "first")}
    groups = {Key(name=f"{n} ({len(s):,})", style=keys[n]): np.array(s) for n, s in scores.items()}
    marks = [Mark(at=at, text=f"{outcome} above {at:g}") for outcome, at in found.thresholds.get(model, ())]
    return _spread(title, groups, marks)


def tested_scores(one: Trained) -> Picture:
    """Of the rows that a model was tested on."""
    style = MODEL_STYLES.get(one.name, "first")
    groups = {
        Key(name=f"did not ({one.tested.rows - one.tested.positives:,})", style="honest"): one.scores[~one.truths],
        Key(name=f"{WHAT[one.name]} ({one.tested.positives:,})", style=style): one.scores[one.truths],
    }
    return _spread(f"Score of {one.name}, by the matured label", groups, [])


WHAT = {"fraud": "charged back", "default": "defaulted"}


def _spread(title: str, groups: dict[Key, Floats], marks: Sequence[Mark]) -> Picture:
    """Each group's scores as shares of the group, so that a rare kind is seen beside a frequent one."""
    every = np.concatenate(list(groups.values()))
    if not len(every):
        return empty(title, "there are no scores")
    low = max(1e-4, float(every.min()))
    axis = powers("score", low, 1.0, shown=lambda value: f"{value:g}")
    edges = np.logspace(math.log10(axis.low), 0.0, SCORE_BINS + 1)
    drawn = []
    for place, (key, scores) in enumerate(groups.items()):
        heights, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
        shared = heights / max(1, len(scores))
        drawn.append(Steps(key=key, heights=shared.tolist(), filled=place == 0))
    return histogram(title, edges.tolist(), drawn, x=axis, y_label="share of each kind", percents=True, marks=marks)


def ranking(trained: Sequence[Trained]) -> Picture:
    """ROC."""
    drawn = []
    for one in _testable(trained):
        points = curve(one.truths, one.scores)
        x, y = points.false / points.false[-1], points.true / points.true[-1]
        drawn.append(_line(one, f"{one.name}, AUC {one.tested.auc_roc:.3f}", [(0.0, 0.0), *_pairs(x, y)]))
    return lines(
        "Ranking: ROC on matured labels",
        drawn,
        x=shares("of the others, flagged"),
        y=shares("of the true, found"),
        diagonal=True,
    )


def precision(trained: Sequence[Trained]) -> Picture:
    """Precision over recall."""
    drawn = []
    for one in _testable(trained):
        points = curve(one.truths, one.scores)
        recall, precise = points.true / points.true[-1], points.true / (points.true + points.false)
        name = f"{one.name}, average {one.tested.average_precision:.3f}"
        drawn.append(_line(one, name, _pairs(recall, precise)))
    return lines(
        "Precision and recall on matured labels", drawn, x=shares("of the true, found"), y=shares("of the found, true")
    )


def calibrated(trained: Sequence[Trained]) -> Picture:
    """What was predicted beside what came true, by half decades of the score."""
    low, groups = 1e-3, []
    for one in _testable(trained):
        key = Key(name=one.name, style=MODEL_STYLES.get(one.name, "first"))
        found = [bin for bin in calibration(one.truths, one.scores) if bin.predicted >= low]
        groups.append(
            (
                key,
                [
                    Dot(
                        x=bin.predicted,
                        y=max(low, bin.share),
                        low=max(low, bin.low),
                        high=bin.high,
                        said=f"{bin.rows:,} rows: predicted {bin.predicted:.2%}, true {bin.share:.2%}",
                    )
                    for bin in found
                ],
            )
        )
    axes = [powers(label, low, 1.0, shown=percent) for label in ("predicted", "came true")]
    return dots("Calibration on matured labels", groups, x=axes[0], y=axes[1])


def latency(milliseconds: Floats) -> Picture:
    """From asking until the answer, as the caller sees it; marked where half, and all but one in a hundred, are
    done."""
    title = "From request to durable answer"
    if not len(milliseconds):
        return empty(title, "no application was decided")
    p50, p99 = (float(value) for value in np.percentile(milliseconds, (50, 99)))
    low, high = float(milliseconds.min()), max(float(milliseconds.max()), float(milliseconds.min()) * 1.01)
    axis = _tight("ms, by powers", low, high)
    edges = np.logspace(math.log10(axis.low), math.log10(axis.high), LATENCY_BINS + 1)
    heights, _ = np.histogram(np.clip(milliseconds, edges[0], edges[-1]), edges)
    steps = Steps(
        key=Key(name=f"requests ({len(milliseconds):,})", style="approve"), heights=heights.tolist(), filled=True
    )
    marks = [Mark(at=p50, text=f"p50 {p50:.2f} ms"), Mark(at=p99, text=f"p99 {p99:.2f} ms")]
    return histogram(title, edges.tolist(), [steps], x=axis, y_label="requests", marks=marks)


def _tight(label: str, low: float, high: float) -> Axis:
    """By powers, with ticks at 1, 2 and 5 of each, no wider than it must be."""
    steps = [digit * 10.0**power for power in range(-6, 9) for digit in (1, 2, 5)]
    first = max(each for each in steps if each <= max(low, steps[0]))
    last = min(each for each in steps if each >= min(high, steps[-1]) and each > first)
    ticks = tuple(Tick(at=each, text=f"{each:g}") for each in steps if first <= each <= last)
    return Axis(label=label, low=first, high=last, ticks=ticks, log=True)


def _testable(trained: Sequence[Trained]) -> list[Trained]:
    """Those with rows of both kinds to test on."""
    return [one for one in trained if 0 < one.tested.positives < one.tested.rows]


def _line(one: Trained, name: str, points: Sequence[tuple[float, float]]) -> Line:
    style = MODEL_STYLES.get(one.name, "first")
    return Line(key=Key(name=name, style=style), points=points, dashed=style == "second")


def _pairs(x: Floats, y: Floats) -> list[tuple[float, float]]:
    return list(zip(x.tolist(), y.tolist(), strict=True))
