"""The scorer: against plain Python that walks the stored trees, one row against a batch, compiled against
interpreted."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.elementary import exp_scalar
from headrace.core.kernel import scorer
from headrace.core.kernel.model import Floats, Form, Trees
from headrace.models.artifact import Artifact, ArtifactInput, Scorer, encode

INPUTS = 4
EDGES = (0.0, 1.0, -1.0, 0.1, 1e-40, -1e-40, 3e38, 1e300, -1e300, 16_777_217.0, math.nan)


def random_trees(random: np.random.Generator, count: int, *, depth: int) -> Trees:
    """Trees grown by coin; thresholds among the edges that inputs are drawn from too, so that ties are common."""
    left: list[int] = []
    right: list[int] = []
    roots = []

    def grow(room: int) -> int:
        at = len(left)
        left.append(-1)
        right.append(-1)
        if room and random.random() < 0.8:
            left[at], right[at] = grow(room - 1), grow(room - 1)
        return at

    for _ in range(count):
        roots.append(grow(depth))
    nodes = len(left)
    finite = [edge for edge in EDGES if not math.isnan(edge) and abs(edge) < 1e39]
    leaf = np.array(left) < 0
    with np.errstate(under="ignore"):
        thresholds = random.choice(finite, nodes).astype(np.float32)
    return Trees(
        roots=np.array(roots, np.int32),
        left=np.array(left, np.int32),
        right=np.array(right, np.int32),
        input=random.integers(0, INPUTS, nodes).astype(np.int16),
        threshold=thresholds,
        missing_left=random.random(nodes) < 0.5,
        value=np.where(leaf, random.normal(size=nodes).astype(np.float32), 0.0).astype(np.float64),
        cover=random.integers(1, 100, nodes).astype(np.float64),
    )


def artifact(form: Form, random: np.random.Generator, *, standardize: bool, trees: int = 7) -> Artifact:
    linear = form is Form.LINEAR
    return Artifact(
        model="m",
        fingerprint="f",
        method="test",
        inputs=tuple(ArtifactInput(name=f"x{i}", reads=f"rows.x{i}", type="float64") for i in range(INPUTS)),
        label="truth",
        views=(),
        training_set="t",
        libraries=(),
        form=form,
        base=float(np.float32(random.normal())),
        means=random.normal(size=INPUTS) if standardize else None,
        deviations=random.uniform(0.1, 3, INPUTS) if standardize else None,
        fills=random.normal(size=INPUTS) if linear else None,
        coefficients=random.normal(size=INPUTS) if linear else None,
        trees=None if linear else random_trees(random, trees, depth=5),
    )


def naive(model: Artifact, row: list[float]) -> float:
    """The scorer's rules in plain Python, over the stored form."""
    prepared = []
    for i, x in enumerate(row):
        if model.fills is not None and math.isnan(x):
            x = float(model.fills[i])
        if model.means is not None and model.deviations is not None:
            x = (x - float(model.means[i])) / float(model.deviations[i])
        prepared.append(x)
    if model.form is Form.LINEAR:
        assert model.coefficients is not None
        margin = model.base
        for x, coefficient in zip(prepared, model.coefficients.tolist(), strict=True):
            margin += coefficient * x
        return squashed(margin)
    assert model.trees is not None
    leaves = [fall(model.trees, root, prepared) for root in model.trees.roots.tolist()]
    if model.form is Form.AVERAGED:
        total = 0.0
        for leaf in leaves:
            total += leaf
        return total / len(leaves)
    if model.form is Form.SUMMED:
        margin = model.base
        for leaf in leaves:
            margin += leaf
        return squashed(margin)
    margin32 = np.float32(model.base)
    for leaf in leaves:
        margin32 = np.float32(margin32 + np.float32(leaf))
    return squashed(float(margin32))


def fall(trees: Trees, at: int, row: list[float]) -> float:
    while trees.left[at] >= 0:
        with np.errstate(over="ignore"):
            x = np.float32(row[trees.input[at]])
        left = trees.missing_left[at] if math.isnan(x) else x < trees.threshold[at]
        at = trees.left[at] if left else trees.right[at]
    return float(trees.value[at])


def squashed(margin: float) -> float:
    if margin >= 0:
        return 1.0 / (1.0 + exp_scalar(-margin))
    return exp_scalar(margin) / (1.0 + exp_scalar(margin))


def random_rows(random: np.random.Generator, count: int) -> Floats:
    rows = random.choice(EDGES, (count, INPUTS))
    return np.where(random.random(rows.shape) < 0.3, random.normal(size=rows.shape), rows)


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("standardize", [False, True])
def test_scores_are_those_of_the_rules_to_the_bit(form: Form, standardize: bool) -> None:
    random = np.random.default_rng(int(form) * 2 + standardize)
    for count in (1, 3, 4, 5, 8, 9):
        model = artifact(form, random, standardize=standardize, trees=count)
        served = Scorer(model)
        rows = random_rows(random, 200)
        scores = served.many(rows)
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            assert score == naive(model, row)
            assert served.one(row) == score


def test_a_tie_with_a_threshold_goes_right_and_is_compared_as_float32() -> None:
    trees = Trees(
        roots=np.array([0], np.int32),
        left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32),
        input=np.zeros(3, np.int16),
        threshold=np.array([0.1, 0, 0], np.float32),
        missing_left=np.array([True, False, False]),
        value=np.array([0.0, 0.25, 0.75]),
        cover=np.array([4.0, 3.0, 1.0]),
    )
    model = artifact(Form.AVERAGED, np.random.default_rng(0), standardize=False)
    served = Scorer(changed(model, trees=trees, inputs=model.inputs[:1]))
    below = float(np.nextafter(np.float32(0.1), np.float32(0)))
    assert [served.one([x]) for x in (below, 0.1, float(np.float32(0.1)), math.nan)] == [0.25, 0.75, 0.75, 0.25]


def changed(model: Artifact, **parts: object) -> Artifact:
    said = {name: getattr(model, name) for name in model.__slots__ if name != "id"}
    return Artifact(**{**said, **parts})


@given(x=st.floats(min_value=-800, max_value=0))
@settings(max_examples=500)
def test_exp_is_the_pinned_one_to_the_bit(x: float) -> None:
    assert scorer.exp(x) == exp_scalar(x)


def test_sigmoid_at_its_ends() -> None:
    assert [scorer.sigmoid(x) for x in (0.0, 1000.0, -1000.0, 40.0)] == [0.5, 1.0, 0.0, 1.0]
    assert scorer.sigmoid(-40.0) == exp_scalar(-40.0)


def test_without_compiler_the_scores_are_the_same_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    rows = random_rows(random, 60)
    expected = []
    for form in Form:
        model = artifact(form, random, standardize=bool(form))
        (tmp_path / f"{form.name}.model").write_bytes(encode(model))
        expected.append(Scorer(model).many(rows))
    np.save(tmp_path / "rows.npy", rows)
    program = (
        "import sys, numpy as np; from pathlib import Path; from headrace.core.kernel.model import Form; "
        "from headrace.models.artifact import Scorer, decode; place = Path(sys.argv[1]); "
        "rows = np.load(place / 'rows.npy'); "
        "np.save(place / 'scores.npy', np.array("
        "[Scorer(decode((place / f'{f.name}.model').read_bytes())).many(rows) for f in Form]))"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True, env=environment)
    assert np.array(expected).tobytes() == np.load(tmp_path / "scores.npy").tobytes()
