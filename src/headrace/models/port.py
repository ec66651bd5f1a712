"""The models' ports: a library that trains, and a store of what was trained.

What a library made is converted to arrays at once and scored by headrace's own scorer from then on; the library answers
one more time, for every training row, so that registration can compare (SEMANTICS 5.7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.core.kernel.model import Form, Trees
from headrace.core.times import Instant
from headrace.models.artifact import Artifact
from headrace.models.define import Trainer

Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learned:
    """What a library learned, as arrays. base, coefficients, trees: as `scorer.pack` takes them. scores: the library's
    own probability of each training row, to compare with. libraries: (name, version) of what had a part in it."""

    form: Form
    base: float = 0.0
    coefficients: Floats | None = None
    trees: Trees | None = None
    scores: Floats
    libraries: tuple[tuple[str, str], ...]


class TrainerLibrary(ABC):
    """A library that trains. Touches nothing but processors and memory."""

    @abstractmethod
    def takes_null(self, trainer: Trainer) -> bool:
        """Whether inputs may hold NaN; where not, nulls are filled by the training mean before."""

    @abstractmethod
    def train(self, trainer: Trainer, inputs: Floats, truths: Truths) -> Learned:
        """inputs: float64[rows, n], C order, finite or NaN. truths: bool[rows], both kinds there. The same call gives
        the same arrays, on one machine and version. Raises: InputError HR-0612 where the library refuses the
        settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One line of a store's list. id: the artifact's content hash. fingerprint: of the definition it was trained by.
    stored_at: when it was last put."""

    id: str
    model: str
    fingerprint: str
    method: str
    training_set: str
    size_bytes: int
    stored_at: Instant


class ModelStore(ABC):
    """Artifacts by content hash; one that is there never changes."""

    @abstractmethod
    def put(self, artifact: Artifact) -> str:
        """Keep it, durable on return; its id. Putting what is there makes it the newest, and changes nothing else."""

    @abstractmethod
    def get(self, id: str) -> Artifact:
        """Raises: NotFoundError HR-0611, SchemaError HR-0609 where the bytes are not what the id says."""

    @abstractmethod
    def list(self) -> Sequence[Stored]:
        """All, sorted by model, then oldest first."""
