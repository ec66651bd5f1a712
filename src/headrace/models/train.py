"""Training: rows in, an artifact and a report out. Uses processors and memory, touches nothing else.

The one idea: nothing is registered that headrace does not score as the library does. Own score and library are compared
on every training row, and a difference above the tolerance is an error, not a warning (SEMANTICS 5.7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from headrace import plugs
from headrace.core.errors import InputError, SchemaError, UsageError
from headrace.core.expr import describe
from headrace.models.artifact import Artifact, ArtifactInput, Scorer
from headrace.models.define import Model
from headrace.models.inputs import Floats, labels, matrix
from headrace.models.port import Learned, TrainerLibrary, Truths

# Two roundings to float32 of a number below 1, and the libraries' own float32 sigmoid, stay below it.
TOLERANCE = 1e-6
_CONSTANT = 10 * np.finfo(np.float64).eps  # a deviation this small beside the mean is the mean's own rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """rows, positives: of the training set. nulls: (input, rows where it is null), where there are any.
    largest_difference: between own scorer and library, over all rows."""

    rows: int
    positives: int
    nulls: tuple[tuple[str, int], ...]
    largest_difference: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """The artifact, not yet stored; what was seen; own scores of the training rows, in order."""

    artifact: Artifact
    report: TrainingReport
    scores: Floats


def train(
    model: Model,
    table: pa.Table,
    *,
    training_set: str,
    fingerprint: str,
    views: Mapping[str, str],
    library: TrainerLibrary | None = None,
) -> Trained:
    """Train, convert, compare.

    table: a column for each input by its name and type, nulls allowed, and the label's column without nulls; others are
    ignored. training_set: its content hash. fingerprint: of the model. views: name -> fingerprint of each that the
    model reads. library: the plug; by default the trainer's own. The same rows in the same order give the same
    artifact. Raises: SchemaError HR-0607 (the table does not fit), InputError HR-0612 (the library refuses), InputError
    HR-0608 (own scores differ), MissingExtraError HR-0990.
    """
    missing = [name for name in model.views if name not in views]
    if missing:
        raise UsageError("HR-0613", f"model {model.name!r} reads view {missing[0]!r}, whose fingerprint was not given")
    inputs, truths = matrix(model, table), labels(model, table)
    _check_rows(model, truths)
    chosen = library if library is not None else library_of(model)
    means, deviations = _statistics(inputs)
    standardize, fill = model.trainer.standardize, not chosen.takes_null(model.trainer)
    prepared = np.where(np.isnan(inputs), means, inputs) if fill else inputs
    if standardize:
        prepared = (prepared - means) / deviations
    learned = chosen.train(model.trainer, prepared, truths)
    artifact = Artifact(
        model=model.name,
        fingerprint=fingerprint,
        method=model.trainer.method.value,
        inputs=tuple(ArtifactInput(name=i.name, reads=describe(i.expr), type=str(i.type)) for i in model.inputs),
        label=model.label_name,
        views=tuple((name, views[name]) for name in model.views),
        training_set=training_set,
        libraries=learned.libraries,
        form=learned.form,
        base=learned.base,
        means=means if standardize else None,
        deviations=deviations if standardize else None,
        fills=means if fill else None,
        coefficients=learned.coefficients,
        trees=learned.trees,
    )
    scores = Scorer(artifact).many(inputs)
    return Trained(
        artifact=artifact,
        report=TrainingReport(
            rows=len(truths),
            positives=int(truths.sum()),
            nulls=tuple(
                (one.name, int(count))
                for one, count in zip(model.inputs, np.isnan(inputs).sum(axis=0), strict=True)
                if count
            ),
            largest_difference=_compare(model, scores, learned),
        ),
        scores=scores,
    )


def library_of(model: Model) -> TrainerLibrary:
    """The library that trains by the model's method."""
    adapter = plugs.load("trainer", model.trainer.method.value)
    assert isinstance(adapter, type) and issubclass(adapter, TrainerLibrary)
    return adapter()


def _check_rows(model: Model, truths: Truths) -> None:
    positives = int(truths.sum())
    if positives == 0 or positives == len(truths):
        raise SchemaError(
            "HR-0607",
            f"model {model.name!r}: its training set has {len(truths)} rows, of which {positives} are true",
            detail="expected both kinds",
            hint="take rows over a longer time, whose label has matured",
        )


def _statistics(inputs: Floats) -> tuple[Floats, Floats]:
    """Mean and population deviation of each column's numbers, from exact sums, so that no order or machine changes
    them; a column without numbers has mean 0, a constant one deviation 1."""
    means, deviations = np.zeros(inputs.shape[1]), np.ones(inputs.shape[1])
    for place in range(inputs.shape[1]):
        known = inputs[:, place][~np.isnan(inputs[:, place])]
        if not len(known):
            continue
        # Scaled by a power of two, which rounds nothing, so that no square leaves the doubles.
        exponent = int(np.frexp(np.abs(known).max())[1])
        scaled = np.ldexp(known, -exponent)
        mean = math.fsum(scaled) / len(known)
        deviation = math.sqrt(math.fsum((scaled - mean) ** 2) / len(known))
        means[place] = math.ldexp(mean, exponent)
        if deviation > _CONSTANT * abs(mean):
            deviations[place] = math.ldexp(deviation, exponent)
    return means, deviations


def _compare(model: Model, scores: Floats, learned: Learned) -> float:
    """The largest difference to the library. Raises: InputError HR-0608 above TOLERANCE, or where it is no number."""
    differences = np.abs(scores - learned.scores)
    row = int(np.argmax(differences))  # the first NaN, if there is one
    if not differences[row] <= TOLERANCE:
        raise InputError(
            "HR-0608",
            f"model {model.name!r}: headrace and {learned.libraries[0][0]} score row {row} differently",
            detail=f"headrace {scores[row]!r}, the library {learned.scores[row]!r}, expected within {TOLERANCE}",
            hint="an input may lie beyond float32: scale it, or take its logarithm by hr.ln",
            row=row,
        )
    return float(differences[row])
