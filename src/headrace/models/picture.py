"""A picture of how good scores are: both curves and the scores of true and false rows, as a PNG. Needs matplotlib.

The one idea: it is drawn on a canvas of its own, so no window, no display and no global state is involved.
"""

from __future__ import annotations

import io

import numpy as np

from headrace import plugs
from headrace.models.evaluate import Floats, Truths, auc_roc, average_precision, curve

_BINS = 50


def picture(truths: Truths, scores: Floats, *, title: str) -> bytes:
    """Raises: UsageError HR-0614 as `curve` does, MissingExtraError HR-0990 without matplotlib."""
    points = curve(truths, scores)
    figures = plugs.require("matplotlib.figure", wanted_by="the picture of an evaluation")
    canvases = plugs.require("matplotlib.backends.backend_agg", wanted_by="the picture of an evaluation")
    figure = figures.Figure(figsize=(13, 4), layout="constrained")
    canvases.FigureCanvasAgg(figure)
    figure.suptitle(title)
    ranked, precise, spread = figure.subplots(1, 3)
    recall = np.concatenate([[0.0], points.true / points.true[-1]])
    ranked.plot(np.concatenate([[0.0], points.false / points.false[-1]]), recall)
    ranked.plot([0, 1], [0, 1], linestyle=":", color="grey")
    ranked.set(xlabel="false positive rate", ylabel="true positive rate", title=f"AUC {auc_roc(truths, scores):.3f}")
    precision = points.true / (points.true + points.false)
    precise.step(recall[1:], precision, where="pre")
    precise.axhline(float(truths.mean()), linestyle=":", color="grey")
    area = average_precision(truths, scores)
    precise.set(xlabel="recall", ylabel="precision", title=f"average precision {area:.3f}", ylim=(0, 1.02))
    bins = np.linspace(float(scores.min()), float(scores.max()) + 1e-12, _BINS + 1)
    for kind, chosen in (("false", ~truths), ("true", truths)):
        spread.hist(scores[chosen], bins=bins, density=True, alpha=0.5, label=f"{kind} ({int(chosen.sum())})")
    spread.set(xlabel="score", ylabel="density", yscale="log", title="scores")
    spread.legend()
    data = io.BytesIO()
    # No date and no version inside: the same scores give the same picture.
    figure.savefig(data, format="png", dpi=100, metadata={"Software": None})
    return data.getvalue()
