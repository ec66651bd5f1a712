"""Contributions: against Shapley's definition in exact fractions, against the sums they must add up to, one row against
a batch, compiled against interpreted."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from headrace.core.kernel import scorer
from headrace.core.kernel.model import Floats, Form, Trees
from headrace.core.kernel.shap_model import BLOCK, EXPLAINED_HEADER_WORDS, T_BLOCKS, explained, gauss_legendre
from headrace.models.artifact import Artifact, ArtifactInput, encode
from headrace.models.contributions import Contributions
from tests.unit.models.test_scorer import INPUTS, artifact, changed, fall, random_rows, random_trees

EXACT = 1e-9
TREE_FORMS = (Form.BOOSTED, Form.AVERAGED, Form.SUMMED)


# --- the definition, by all subsets ---


def expectation(trees: Trees, at: int, row: list[float], known: frozenset[int]) -> Fraction:
    """What the tree expects of a row of which these inputs are known."""
    if trees.left[at] < 0:
        return Fraction(float(trees.value[at]))
    left, right, asked = int(trees.left[at]), int(trees.right[at]), int(trees.input[at])
    if asked in known:
        with np.errstate(over="ignore"):
            x = np.float32(row[asked])
        goes_left = trees.missing_left[at] if math.isnan(x) else x < trees.threshold[at]
        return expectation(trees, left if goes_left else right, row, known)
    covers = Fraction(float(trees.cover[left])), Fraction(float(trees.cover[right]))
    share = covers[0] / sum(covers) if sum(covers) else Fraction(1, 2)
    return share * expectation(trees, left, row, known) + (1 - share) * expectation(trees, right, row, known)


def shapley(trees: Trees, root: int, row: list[float]) -> list[Fraction]:
    count = len(row)
    values = {
        known: expectation(trees, root, row, known)
        for size in range(count + 1)
        for known in map(frozenset, itertools.combinations(range(count), size))
    }
    weights = [Fraction(1, count * math.comb(count - 1, size)) for size in range(count)]
    return [
        sum(
            (weights[len(s)] * (values[s | {i}] - values[s]) for s in values if i not in s),
            Fraction(0),
        )
        for i in range(count)
    ]


def by_definition(model: Artifact, row: list[float]) -> tuple[Fraction, list[Fraction]]:
    """Base and contributions of a row that is not standardised."""
    trees = model.trees
    assert trees is not None
    roots = trees.roots.tolist()
    scale = Fraction(1, len(roots)) if model.form is Form.AVERAGED else Fraction(1)
    base = Fraction(0) if model.form is Form.AVERAGED else Fraction(model.base)
    found = [Fraction(0)] * len(row)
    for root in roots:
        base += scale * expectation(trees, root, row, frozenset())
        found = [a + scale * b for a, b in zip(found, shapley(trees, root, row), strict=True)]
    return base, found


def expect_by_definition(model: Artifact, rows: Floats) -> None:
    ours = Contributions(model)
    for row in rows.tolist():
        base, expected = by_definition(model, row)
        assert ours.base == pytest.approx(float(base), abs=EXACT)
        assert ours.one(row).tolist() == pytest.approx([float(x) for x in expected], abs=EXACT)


def of_inputs(count: int) -> tuple[ArtifactInput, ...]:
    return tuple(ArtifactInput(name=f"x{i}", reads=f"rows.x{i}", type="float64") for i in range(count))


def spread(trees: Trees, random: np.random.Generator, inputs: int) -> Trees:
    """The same trees asking other inputs."""
    parts = {name: getattr(trees, name) for name in trees.__slots__}
    return Trees(**{**parts, "input": random.integers(0, inputs, len(trees.left)).astype(np.int16)})


@pytest.mark.parametrize("form", TREE_FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_trees_contribute_what_shapley_defines(form: Form, seed: int) -> None:
    """Four inputs and five levels: most paths ask an input again, at thresholds that rows and other nodes share."""
    random = np.random.default_rng(seed)
    expect_by_definition(artifact(form, random, standardize=False, trees=3), random_rows(random, 8))


@pytest.mark.parametrize("inputs", [1, 2, 7, 8])
def test_any_number_of_inputs_on_a_path(inputs: int) -> None:
    """More than two inputs a point, so that a second block of points is needed."""
    random = np.random.default_rng(inputs)
    model = artifact(Form.SUMMED, random, standardize=False, trees=1)
    trees = spread(random_trees(random, 1, depth=9), random, inputs)
    rows = np.where(random.random((2, inputs)) < 0.2, np.nan, random.normal(size=(2, inputs)))
    expect_by_definition(changed(model, trees=trees, inputs=of_inputs(inputs)), rows)


def chain(count: int) -> Trees:
    """A path that asks each input once; at each node half of the rows leave, and the last leaf alone is worth 1."""
    nodes = 2 * count + 1
    inner = np.arange(count) * 2
    left, right, asked = np.full(nodes, -1), np.full(nodes, -1), np.zeros(nodes)
    left[inner], right[inner], asked[inner] = inner + 1, inner + 2, np.arange(count)
    return Trees(
        roots=np.array([0], np.int32),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        input=asked.astype(np.int16),
        threshold=np.zeros(nodes, np.float32),
        missing_left=np.zeros(nodes, np.bool_),
        value=np.append(np.zeros(nodes - 1), 1.0),
        cover=0.5 ** ((np.arange(nodes) + 1) // 2),
    )


def test_a_path_that_asks_forty_inputs() -> None:
    """Seven blocks of points, against what symmetry says."""
    count = 40
    model = artifact(Form.SUMMED, np.random.default_rng(0), standardize=False)
    ours = Contributions(changed(model, trees=chain(count), inputs=of_inputs(count), base=0.0))
    assert ours.base == 0.5**count
    equal = (1.0 - 0.5**count) / count
    assert ours.one([1.0] * count).tolist() == pytest.approx([equal] * count, abs=1e-12)
    # The last input fails: it takes what others have given by the time it is known, half of a half of ... for each.
    failing = ours.one([1.0] * (count - 1) + [-1.0])
    lost = sum(Fraction(1, count) * Fraction(1, 2) ** (count - known) for known in range(count))
    assert failing[-1] == pytest.approx(-float(lost), abs=1e-12)
    assert failing.sum() + ours.base == pytest.approx(0.0, abs=1e-12)
    assert np.ptp(failing[:-1]) < 1e-15


@pytest.mark.parametrize("seed", range(3))
def test_nodes_that_no_training_row_came_by(seed: int) -> None:
    random = np.random.default_rng(seed)
    model = artifact(Form.SUMMED, random, standardize=False, trees=3)
    assert model.trees is not None
    cover = np.where(random.random(len(model.trees.cover)) < 0.5, 0.0, model.trees.cover)
    parts = {name: getattr(model.trees, name) for name in model.trees.__slots__}
    expect_by_definition(changed(model, trees=Trees(**{**parts, "cover": cover})), random_rows(random, 8))


def one_tree(**parts: object) -> Trees:
    """A root with two leaves, or what is said."""
    return Trees(
        **{  # type: ignore[arg-type]  # of the fields' types where not said
            "roots": np.array([0], np.int32),
            "left": np.array([1, -1, -1], np.int32),
            "right": np.array([2, -1, -1], np.int32),
            "input": np.zeros(3, np.int16),
            "threshold": np.array([0.1, 0, 0], np.float32),
            "missing_left": np.array([True, False, False]),
            "value": np.array([0.0, 0.25, 0.75]),
            "cover": np.array([4.0, 3.0, 1.0]),
            **parts,
        }
    )


def test_a_tree_of_one_leaf_adds_to_the_base_alone() -> None:
    leaf = one_tree(
        left=np.array([-1], np.int32),
        right=np.array([-1], np.int32),
        input=np.zeros(1, np.int16),
        threshold=np.zeros(1, np.float32),
        missing_left=np.zeros(1, np.bool_),
        value=np.array([0.5]),
        cover=np.array([0.0]),
    )
    model = changed(artifact(Form.SUMMED, np.random.default_rng(0), standardize=False), trees=leaf, base=0.25)
    ours = Contributions(model)
    assert (ours.base, ours.one([1.0] * INPUTS).tolist()) == (0.75, [0.0] * INPUTS)
    assert ours.raising([1.0] * INPUTS) == []


def test_a_split_is_worth_its_distance_from_the_mean() -> None:
    model = artifact(Form.AVERAGED, np.random.default_rng(0), standardize=False)
    ours = Contributions(changed(model, trees=one_tree(), inputs=model.inputs[:1]))
    assert ours.base == 0.375
    assert [ours.one([x]).tolist() for x in (0.0, 0.1, math.nan)] == [
        pytest.approx([x - 0.375], abs=1e-15) for x in (0.25, 0.75, 0.25)
    ]


# --- what they add up to ---


@pytest.mark.parametrize("form", TREE_FORMS)
@pytest.mark.parametrize("standardize", [False, True])
def test_base_and_contributions_add_up_to_the_score_before_squashing(form: Form, standardize: bool) -> None:
    random = np.random.default_rng(int(form))
    for count in (1, 5, 40):
        model = artifact(form, random, standardize=standardize, trees=count)
        assert model.trees is not None
        rows = random_rows(random, 60)
        ours = Contributions(model)
        prepared = (rows - model.means) / model.deviations if standardize else rows
        leaves = np.array(
            [[fall(model.trees, root, row) for root in model.trees.roots.tolist()] for row in prepared.tolist()]
        )
        expected = leaves.mean(axis=1) if form is Form.AVERAGED else model.base + leaves.sum(axis=1)
        assert np.abs(ours.base + ours.many(rows).sum(axis=1) - expected).max() < EXACT


@pytest.mark.parametrize("standardize", [False, True])
def test_a_linear_contribution_is_coefficient_times_distance_from_the_mean(standardize: bool) -> None:
    random = np.random.default_rng(3)
    model = artifact(Form.LINEAR, random, standardize=standardize)
    assert model.fills is not None and model.coefficients is not None
    rows = random.normal(size=(40, INPUTS))
    rows[random.random(rows.shape) < 0.2] = np.nan
    filled = np.where(np.isnan(rows), model.fills, rows)
    mean = model.fills
    if standardize:
        assert model.means is not None and model.deviations is not None
        filled, mean = ((x - model.means) / model.deviations for x in (filled, mean))
    ours = Contributions(model)
    found = ours.many(rows)
    assert found.tolist() == (model.coefficients * (filled - mean)).tolist()
    assert (found[np.isnan(rows)] == 0).all()
    margins = np.empty(len(rows))
    scorer.margin_batch(*model.pack(), rows, margins)
    assert np.abs(ours.base + found.sum(axis=1) - margins).max() < EXACT


# --- the same bits ---


@pytest.mark.parametrize("form", list(Form))
def test_one_row_and_a_batch_give_the_same_bits(form: Form) -> None:
    random = np.random.default_rng(8)
    ours = Contributions(artifact(form, random, standardize=True, trees=9))
    rows = random_rows(random, 50)
    many = ours.many(rows)
    assert np.array([ours.one(row) for row in rows.tolist()]).tobytes() == many.tobytes()
    assert ours.many(rows[:0]).shape == (0, INPUTS)
    assert ours.many(np.asfortranarray(rows)).tobytes() == many.tobytes()
    first = ours.one(rows[0].tolist())
    ours.one(rows[1].tolist())
    assert first.tobytes() == many[0].tobytes()  # what was given is the caller's


def test_a_row_of_another_length_is_refused() -> None:
    ours = Contributions(artifact(Form.SUMMED, np.random.default_rng(1), standardize=False))
    with pytest.raises(ValueError, match="broadcast"):
        ours.one([1.0] * (INPUTS - 2))
    with pytest.raises(ValueError, match="expected"):
        ours.many(np.zeros((3, INPUTS + 1)))


def test_without_compiler_the_contributions_are_the_same_bits(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    rows = random_rows(random, 20)
    expected = []
    for form in Form:
        model = artifact(form, random, standardize=bool(form), trees=4)
        (tmp_path / f"{form.name}.model").write_bytes(encode(model))
        expected.append(Contributions(model).many(rows))
    np.save(tmp_path / "rows.npy", rows)
    program = (
        "import sys, numpy as np; from pathlib import Path; from headrace.core.kernel.model import Form; "
        "from headrace.models.artifact import decode; from headrace.models.contributions import Contributions; "
        "place = Path(sys.argv[1]); rows = np.load(place / 'rows.npy'); "
        "np.save(place / 'found.npy', np.array("
        "[Contributions(decode((place / f'{f.name}.model').read_bytes())).many(rows) for f in Form]))"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path)], check=True, env=environment)
    assert np.array(expected).tobytes() == np.load(tmp_path / "found.npy").tobytes()


# --- reasons ---


def interacting(*, covers: tuple[float, ...] = (4, 2, 2, 1, 1, 1, 1)) -> Trees:
    """1 where x0 and x2 are both at least 0, else 0; x1 is asked and changes nothing, x3 is not asked."""
    return one_tree(
        left=np.array([1, -1, 3, -1, 5, -1, -1], np.int32),
        right=np.array([2, -1, 4, -1, 6, -1, -1], np.int32),
        input=np.array([2, 0, 0, 0, 1, 0, 0], np.int16),
        threshold=np.zeros(7, np.float32),
        missing_left=np.ones(7, np.bool_),
        value=np.array([0, 0, 0, 0, 0, 1.0, 1.0]),
        cover=np.array(covers, np.float64),
    )


def test_only_what_raised_the_score_is_a_reason_and_ties_go_by_place() -> None:
    model = artifact(Form.SUMMED, np.random.default_rng(0), standardize=False)
    ours = Contributions(changed(model, trees=interacting()))
    assert ours.one([1.0, 1.0, 1.0, 1.0]).tolist() == pytest.approx([0.375, 0, 0.375, 0], abs=1e-15)
    assert ours.raising([1.0, 1.0, 1.0, 1.0]) == [0, 2]
    assert ours.raising([1.0, 1.0, -1.0, 1.0]) == [0]  # half of what expects x0 alone, and nothing to take it back
    assert ours.raising([math.nan] * 4) == []
    lean = Contributions(changed(model, trees=interacting(covers=(4, 3, 1, 0.5, 0.5, 0.25, 0.25))))
    assert lean.raising([1.0, 1.0, 1.0, 1.0]) == [2, 0]  # fewer rows have x2, so it says more


@pytest.mark.parametrize("seed", range(6))
def test_what_rounding_leaves_of_zero_is_no_reason(seed: int) -> None:
    """Splits between equal leaves: their inputs are worth nothing, which sums of points miss by a last bit."""
    random = np.random.default_rng(seed)
    trees = random_trees(random, 30, depth=5)
    parts = {name: getattr(trees, name) for name in trees.__slots__}
    value = np.zeros(len(trees.left))
    for root, end in itertools.pairwise([*trees.roots.tolist(), len(value)]):
        value[root:end] = random.normal()  # one value a tree
    equal = Trees(**{**parts, "value": value})
    model = changed(artifact(Form.SUMMED, random, standardize=False), trees=equal)
    ours = Contributions(model)
    assert all(ours.raising(row) == [] for row in random_rows(random, 20).tolist())
    # Beside a tree that does say something, the others' rounding is still none.
    value[trees.left < 0] = value[trees.left < 0] * 1e3
    speaking = one_tree(value=np.array([0.0, 0.25, 0.75]))
    both = Trees(
        roots=np.append(trees.roots, len(value)).astype(np.int32),
        left=np.append(trees.left, np.where(speaking.left >= 0, speaking.left + len(value), -1)).astype(np.int32),
        right=np.append(trees.right, np.where(speaking.right >= 0, speaking.right + len(value), -1)).astype(np.int32),
        **{
            name: np.append(parts[name], getattr(speaking, name))
            for name in ("input", "threshold", "missing_left", "cover")
        },
        value=np.append(value, speaking.value),
    )
    assert Contributions(changed(model, trees=both)).raising([1.0] * INPUTS) == [0]


# --- the points ---


def test_the_points_integrate_polynomials_exactly() -> None:
    for count in (1, 2, 3, 6, 12, 30):
        rule = gauss_legendre(count)
        assert [t for t, _ in rule] == sorted(t for t, _ in rule)
        for degree in (0, 1, count, 2 * count - 1):
            assert abs(sum(w * t**degree for t, w in rule) - 1 / Decimal(degree + 1)) < Decimal("1e-25")
    root = (Decimal(15).sqrt() / 10, Decimal(5) / 18)
    assert [(float(t), float(w)) for t, w in gauss_legendre(3)] == [
        (float(Decimal("0.5") - root[0]), float(root[1])),
        (0.5, float(Decimal(4) / 9)),
        (float(Decimal("0.5") + root[0]), float(root[1])),
    ]


@pytest.mark.parametrize(("asked", "blocks"), [(1, 1), (2 * BLOCK, 1), (2 * BLOCK + 1, 2), (40, 7)])
def test_a_tree_takes_as_many_points_as_its_longest_path_needs(asked: int, blocks: int) -> None:
    laid = explained(Form.SUMMED, chain(asked))
    assert laid.words[EXPLAINED_HEADER_WORDS + T_BLOCKS] == blocks
