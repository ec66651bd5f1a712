"""A trained model over one order of values: what decisions score with. Pure but for numba, loaded when the first is
made.

The one idea: the inputs' expressions are compiled once over the places of a row, so a score costs the expressions that
the model really has and one call into compiled code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.core.errors import DefinitionError
from headrace.core.expr import describe
from headrace.models.artifact import Artifact, ArtifactInput, Scorer
from headrace.models.contributions import Contributions
from headrace.models.define import Model
from headrace.models.inputs import Floats, compile_numbers

Values = Sequence[object]


class ServedModel:
    """One artifact of a model; not shared between threads. `row` holds values by the places of `names`.

    What explains is made when first asked for: ask `explainer` beforehand where the first answer must not wait for it.
    """

    __slots__ = ("_contributions", "_numbers", "_scorer", "artifact")

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
        self._contributions: Contributions | None = None
        self._numbers = compile_numbers(model.inputs, names)

    @property
    def id(self) -> str:
        return self.artifact.id

    @property
    def views(self) -> Mapping[str, str]:
        return dict(self.artifact.views)

    def score(self, row: Values) -> float:
        return self._scorer.one(self._numbers(row))  # type: ignore[arg-type]  # lists in a row are read by no input

    def explainer(self) -> Contributions:
        """What explains this artifact, ready. Cost: the first time some milliseconds, a second on a new machine."""
        if self._contributions is None:
            self._contributions = Contributions(self.artifact)
        return self._contributions

    @property
    def base(self) -> float:
        """The margin that contributions start from."""
        return self.explainer().base

    def contributions(self, row: Values) -> Floats:
        """float64[inputs]: what each of the model's inputs adds to the margin of this row."""
        return self.explainer().one(self._numbers(row))  # type: ignore[arg-type]  # as above

    def raised_by(self, row: Values) -> Sequence[int]:
        """The inputs that raised this score, the most first; equal ones in input order."""
        return self.explainer().raising(self._numbers(row))  # type: ignore[arg-type]  # as above
