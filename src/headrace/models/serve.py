"""A trained model over one order of values: what decisions score with. Pure but for numba, loaded when the first is
made.

The one idea: the inputs' expressions are compiled once over the places of a row, so a score costs the expressions that
the model really has and one call into compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.core.errors import DefinitionError
from headrace.core.expr import describe
from headrace.models.artifact import Artifact, ArtifactInput, Scorer
from headrace.models.define import Model
from headrace.models.inputs import compile_numbers

Values = Sequence[object]


class ServedModel:
    """One artifact of a model; not shared between threads. `row` holds values by the places of `names`."""

    __slots__ = ("_numbers", "_scorer", "artifact")

    def __init__(self, model: Model, artifact: Artifact, names: Sequence[str]) -> None:
        """names: the reference path behind each place of a row. Raises: DefinitionError HR-0610 where the artifact was
        trained on other inputs than the model has now, HR-0115 where a path is not among the names."""
        inputs = tuple(ArtifactInput(name=i.name, reads=describe(i.expr), type=str(i.type)) for i in model.inputs)
        if inputs != artifact.inputs:
            changed = [i.name for i in inputs if i not in artifact.inputs] or [i.name for i in artifact.inputs]
            raise DefinitionError(
                "HR-0610",
                f"model {model.name!r}: artifact {artifact.id[:12]} was trained on other inputs",
                detail=f"trained on {len(artifact.inputs)}, defined {len(inputs)}; first to differ: {changed[0]!r}",
                hint="train the model anew",
            )
        self.artifact = artifact
        self._scorer = Scorer(artifact)
        self._numbers = compile_numbers(model.inputs, names)

    @property
    def id(self) -> str:
        return self.artifact.id

    @property
    def views(self) -> Mapping[str, str]:
        return dict(self.artifact.views)

    def score(self, row: Values) -> float:
        return self._scorer.one(self._numbers(row))  # type: ignore[arg-type]  # lists in a row are read by no input

    def raised_by(self, row: Values) -> Sequence[int]:
        """The inputs that raised the score above the training rows' mean, the most first; ties in input order."""
        shares = self._scorer.shares(self._numbers(row))  # type: ignore[arg-type]  # as above
        order = np.argsort(-shares, kind="stable")
        return [int(i) for i in order if shares[i] > 0]
