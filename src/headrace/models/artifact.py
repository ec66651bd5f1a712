"""A trained model as a file of arrays, and the scorer over it. Pure.

The one idea: the file is a line of canonical JSON and then raw arrays, little-endian, so equal models are equal bytes,
the name of a model is the hash of its bytes, and loading one runs no code. What scores is headrace's own scorer; the
library that trained the model is not needed to serve it (SEMANTICS 5.7).

    headrace model 1\\n  {"arrays": [...], "inputs": [...], ...}\\n  zero bytes to a multiple of 64, then the arrays,
    likewise
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.core.codec import canonical_json
from headrace.core.errors import SchemaError
from headrace.core.kernel.model import Floats, Form, Trees, pack

MAGIC = b"headrace model "
FORMAT = 1
SEMANTICS = 1  # of the scorer; raised when any score changes, and then this number's scorer stays (SEMANTICS 5.6)
_ALIGNED = 64
_TREES_MAX = 100_000
_NODES_MAX = 1 << 28

_TREE_TYPES: dict[str, str] = {
    "roots": "<i4",
    "left": "<i4",
    "right": "<i4",
    "input": "<i2",
    "threshold": "<f4",
    "missing_left": "|b1",
    "value": "<f8",
    "cover": "<f8",
}
_INPUT_ARRAYS = ("means", "deviations", "fills", "coefficients")  # float64, one number an input


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInput:
    """An input as it was when the model was trained. reads: its expression in canonical words."""

    name: str
    reads: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artifact:
    """Everything that a score depends on, and where it comes from. Equal content, equal `id`.

    fingerprint: of the model's definition. views: (name, fingerprint) of each view that the inputs read. training_set:
    the content hash of the rows. libraries: (name, version). means, deviations: inputs are standardised by these; None:
    not. fills: what stands for a null, before standardising; None: the trees know where null goes.
    """

    model: str
    fingerprint: str
    method: str
    inputs: tuple[ArtifactInput, ...]
    label: str
    views: tuple[tuple[str, str], ...]
    training_set: str
    libraries: tuple[tuple[str, str], ...]
    form: Form
    base: float = 0.0
    means: Floats | None = None
    deviations: Floats | None = None
    fills: Floats | None = None
    coefficients: Floats | None = None
    trees: Trees | None = None
    semantics: int = SEMANTICS
    id: str = field(init=False, default="")

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "id", hashlib.sha256(encode(self)).hexdigest())

    def pack(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """As the compiled scorer takes it."""
        return pack(
            self.form,
            len(self.inputs),
            base=self.base,
            means=self.means,
            deviations=self.deviations,
            fills=self.fills,
            coefficients=self.coefficients,
            trees=self.trees,
        )


class Scorer:
    """An artifact, ready to score; not shared between threads, as it owns the row that it hands to the compiled code.

    Cost: a row of 100 trees of depth 6 some 5 us, the call included.
    """

    __slots__ = ("_batch", "_floats", "_one", "_row", "_words", "artifact")

    def __init__(self, artifact: Artifact) -> None:
        # numba loads in some 250 ms, which defining, storing and listing models need not pay
        from headrace.core.kernel import scorer

        self.artifact = artifact
        self._words, self._floats = artifact.pack()
        self._row = np.empty(len(artifact.inputs), np.float64)
        self._one = scorer.score_one
        self._batch = scorer.score_batch

    def one(self, numbers: Sequence[float]) -> float:
        """The score of one row: the artifact's inputs in order, NaN where null. Raises: ValueError for another
        length."""
        self._row[:] = numbers
        return float(self._one(self._words, self._floats, self._row))

    def many(self, rows: Floats) -> Floats:
        """float64[rows] from float64[rows, inputs]; equal to `one` of each row, to the bit."""
        scores = np.empty(len(rows), np.float64)
        self._batch(self._words, self._floats, np.ascontiguousarray(rows, np.float64), scores)
        return scores


# --- the file ---


def encode(artifact: Artifact) -> bytes:
    """The artifact's one file. Equal artifacts give equal bytes."""
    header: dict[str, object] = {
        each.name: getattr(artifact, each.name)
        for each in fields(artifact)
        if each.name not in (*_INPUT_ARRAYS, "trees", "inputs", "form", "base", "id")
    }
    header["inputs"] = [[i.name, i.reads, i.type] for i in artifact.inputs]
    header["form"] = artifact.form.name.lower()
    header["base"] = float(artifact.base).hex()  # to the bit, as text
    arrays = {name: array for name in _INPUT_ARRAYS if (array := getattr(artifact, name)) is not None}
    if artifact.trees is not None:
        arrays |= {f"trees.{name}": getattr(artifact.trees, name) for name in _TREE_TYPES}
    stored = {name: np.ascontiguousarray(array, _dtype(name)) for name, array in arrays.items()}
    header["arrays"] = [[name, _dtype(name), len(array)] for name, array in stored.items()]
    start = MAGIC + str(FORMAT).encode() + b"\n" + canonical_json(header).encode() + b"\n"
    return b"".join([_padded(start), *(_padded(array.tobytes()) for array in stored.values())])


def decode(data: bytes) -> Artifact:
    """The artifact that `encode` wrote. Raises: SchemaError HR-0609 for anything else, also bytes of a newer format."""
    try:
        magic, text, _ = data.split(b"\n", 2)
        if not magic.startswith(MAGIC):
            raise _unreadable("it does not begin as one")
        if magic != MAGIC + str(FORMAT).encode():
            raise _unreadable(f"format {magic.removeprefix(MAGIC).decode()}, expected {FORMAT}")
        header: dict[str, Any] = json.loads(text)
        arrays: dict[str, Any] = _arrays(data, _aligned(len(magic) + len(text) + 2), header.pop("arrays"))
        trees = {name.removeprefix("trees."): arrays.pop(name) for name in list(arrays) if name.startswith("trees.")}
        return Artifact(
            **{name: arrays.get(name) for name in _INPUT_ARRAYS},  # type: ignore[arg-type]  # checked by _check
            trees=Trees(**trees) if trees else None,
            inputs=tuple(
                ArtifactInput(name=name, reads=reads, type=type) for name, reads, type in header.pop("inputs")
            ),
            form=Form[header.pop("form").upper()],
            base=float.fromhex(header.pop("base")),
            views=_pairs(header.pop("views")),
            libraries=_pairs(header.pop("libraries")),
            **header,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(f"{type(error).__name__}: {error}") from error


def _arrays(data: bytes, start: int, said: Sequence[tuple[str, str, int]]) -> dict[str, npt.NDArray[np.generic]]:
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, dtype, count in said:
        if dtype != _dtype(name) or not 0 <= count <= _NODES_MAX:
            raise _unreadable(f"array {name!r} of {count} {dtype}")
        size = count * np.dtype(dtype).itemsize
        if start + size > len(data):
            raise _unreadable(f"array {name!r} ends behind the file")
        arrays[name] = np.frombuffer(data, dtype, count, start)
        start += _aligned(size)
    if start != len(data):
        raise _unreadable(f"{len(data)} bytes, expected {start}")
    return arrays


def _dtype(name: str) -> str:
    if name in _INPUT_ARRAYS:
        return "<f8"
    return _TREE_TYPES[name.removeprefix("trees.")]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _padded(data: bytes) -> bytes:
    return data + bytes(_aligned(len(data)) - len(data))


def _pairs(said: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in said)


def _unreadable(detail: str) -> SchemaError:
    return SchemaError("HR-0609", "not a model artifact that can be read", detail=detail)


# --- what every artifact keeps, so that the compiled scorer never reads outside of it ---


def _check(artifact: Artifact) -> None:
    count = len(artifact.inputs)
    if not 1 <= count <= 0x7FFF:
        raise _unreadable(f"{count} inputs")
    if artifact.semantics != SEMANTICS:
        raise _unreadable(f"scores of semantics {artifact.semantics}, expected {SEMANTICS}")
    for name in _INPUT_ARRAYS:
        array = getattr(artifact, name)
        if array is not None and (array.shape != (count,) or not np.isfinite(array).all()):
            raise _unreadable(f"{name}: expected {count} finite numbers")
    if not math.isfinite(artifact.base):
        raise _unreadable(f"base {artifact.base}")
    if (artifact.means is None) != (artifact.deviations is None):
        raise _unreadable("means and deviations come together")
    if artifact.deviations is not None and not (artifact.deviations > 0).all():
        raise _unreadable("a deviation is not above 0")
    linear = artifact.form is Form.LINEAR
    if (
        linear != (artifact.trees is None)
        or linear != (artifact.coefficients is not None)
        or (linear and artifact.fills is None)
    ):
        raise _unreadable(f"form {artifact.form.name} with {'trees' if artifact.trees is not None else 'coefficients'}")
    if artifact.trees is not None:
        _check_trees(artifact.trees, count)


def _check_trees(trees: Trees, inputs: int) -> None:
    """Children lie behind their parents and inside their tree, so that every walk ends at a leaf."""
    nodes = len(trees.left)
    arrays: Mapping[str, npt.NDArray[np.generic]] = {name: getattr(trees, name) for name in _TREE_TYPES}
    if any(len(array) != nodes for name, array in arrays.items() if name != "roots"):
        raise _unreadable("trees' arrays differ in length")
    roots = trees.roots
    if not 1 <= len(roots) <= _TREES_MAX or roots[0] != 0 or (np.diff(roots) <= 0).any() or roots[-1] >= nodes:
        raise _unreadable("trees' roots do not rise from 0")
    inner = trees.left >= 0
    if ((trees.right >= 0) != inner).any():
        raise _unreadable("a node has one child")
    end = np.append(roots[1:], nodes)[np.searchsorted(roots, np.arange(nodes), side="right") - 1]
    for children in (trees.left, trees.right):
        if (children[inner] <= np.flatnonzero(inner)).any() or (children[inner] >= end[inner]).any():
            raise _unreadable("a child does not lie behind its node, in its tree")
    child = np.sort(np.concatenate([trees.left[inner], trees.right[inner]]))
    if (np.diff(child) == 0).any() or len(child) != nodes - len(roots):
        raise _unreadable("nodes do not form trees")
    if (trees.input[inner] < 0).any() or (trees.input[inner] >= inputs).any():
        raise _unreadable(f"a node asks an input that is none of {inputs}")
    if np.isnan(trees.threshold[inner]).any() or not np.isfinite(trees.value[~inner]).all():
        raise _unreadable("a threshold or a leaf is not a number")
    if not (np.isfinite(trees.cover).all() and (trees.cover >= 0).all()):
        raise _unreadable("a cover is not a number of at least 0")
