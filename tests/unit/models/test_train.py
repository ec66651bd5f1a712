"""Training: what is registered scores as the library does, on every row; the same rows give the same artifact."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import headrace as hr
from headrace.core.errors import DefinitionError, InputError, SchemaError, UsageError
from headrace.core.kernel.model import Form
from headrace.models.artifact import Scorer, decode, encode
from headrace.models.define import Trainer
from headrace.models.inputs import matrix
from headrace.models.port import Floats, Learned, TrainerLibrary, Truths
from headrace.models.train import TOLERANCE, Trained, train
from tests.needs import requires
from tests.unit.models.lender import numbers_model, numbers_table

requires("sklearn", "xgboost", "lightgbm")

COUNT = 6
SCALES = (1.0, 1e-6, 1e9, 0.3)
TRAINERS = [
    hr.logistic_regression(),
    hr.logistic_regression(standardize=False, class_weight="balanced"),
    hr.decision_tree(max_depth=2),
    hr.decision_tree(standardize=True, class_weight="balanced"),
    hr.random_forest(n_estimators=9),
    hr.random_forest(n_estimators=9, standardize=True, max_features=0.5),
    hr.xgboost(n_estimators=30),
    hr.xgboost(n_estimators=30, tree_method="exact", base_score=0.5, standardize=True),
    hr.xgboost(n_estimators=30, base_score=0.013, subsample=0.7, colsample_bytree=0.6, gamma=0.5, seed=3),
    hr.lightgbm(n_estimators=30),
    hr.lightgbm(n_estimators=30, max_depth=4, subsample=0.7, subsample_freq=1, reg_lambda=1.0, standardize=True),
]


def trained(trainer: Trainer, table: pa.Table, library: TrainerLibrary | None = None) -> Trained:
    return train(
        numbers_model(trainer, COUNT), table, training_set="hash", fingerprint="print", views={}, library=library
    )


@pytest.mark.parametrize("nulls", [0.0, 0.1])
@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda t: t.method.value)
def test_own_scores_are_the_librarys_on_every_training_row(trainer: Trainer, nulls: float) -> None:
    table = numbers_table(1_500, COUNT, seed=1, nulls=nulls, scales=SCALES)
    result = trained(trainer, table)
    assert result.report.largest_difference <= TOLERANCE
    assert result.report.rows == 1_500 and result.report.positives == sum(table["truth"].to_pylist())
    assert len(result.report.nulls) == (COUNT if nulls else 0)
    served = Scorer(decode(encode(result.artifact)))
    rows = matrix(numbers_model(trainer, COUNT), table)
    assert served.many(rows).tobytes() == result.scores.tobytes()
    assert [served.one(row) for row in rows[:50].tolist()] == result.scores[:50].tolist()


def test_the_margin_of_boosted_trees_is_xgboosts_to_the_bit() -> None:
    xgboost = pytest.importorskip("xgboost")
    from headrace.core.kernel import scorer  # numba: 300 ms, which the other tests pay too

    table = numbers_table(1_000, COUNT, seed=2, nulls=0.05, scales=SCALES)
    model = numbers_model(hr.xgboost(n_estimators=20), COUNT)
    rows, truths = matrix(model, table), np.array(table["truth"])
    artifact = trained(model.trainer, table).artifact
    booster = xgboost.train(
        {"objective": "binary:logistic", "max_depth": 6, "seed": 0}, xgboost.DMatrix(rows, truths), num_boost_round=20
    )
    margins = np.empty(len(rows))
    scorer.margin_batch(*artifact.pack(), rows, margins)
    theirs = booster.predict(xgboost.DMatrix(rows), output_margin=True)
    assert margins.astype(np.float32).tobytes() == theirs.tobytes()


def test_the_same_rows_give_the_same_artifact() -> None:
    table = numbers_table(800, COUNT, seed=3, nulls=0.1)
    for trainer in (
        hr.logistic_regression(),
        hr.random_forest(n_estimators=5),
        hr.xgboost(n_estimators=5),
        hr.lightgbm(),
    ):
        assert trained(trainer, table).artifact.id == trained(trainer, table).artifact.id


def test_a_linear_model_fills_a_null_with_the_training_mean() -> None:
    table = numbers_table(500, COUNT, seed=4, nulls=0.2)
    artifact = trained(hr.logistic_regression(), table).artifact
    assert artifact.fills is not None
    mean = float(np.mean(table["x0"].drop_null().to_numpy()))
    assert artifact.fills[0] == pytest.approx(mean)
    served = Scorer(artifact)
    assert served.one([float("nan"), *[0.5] * 5]) == served.one([artifact.fills[0], *[0.5] * 5])


def test_a_column_without_numbers_and_a_constant_one_are_harmless() -> None:
    table = numbers_table(300, COUNT, seed=5)
    table = table.set_column(0, "x0", pa.nulls(300, pa.float64()))
    table = table.set_column(2, "x2", pa.array([0.1] * 300))
    artifact = trained(hr.logistic_regression(), table).artifact
    assert artifact.means is not None and artifact.deviations is not None
    assert (artifact.means[0], artifact.deviations[0], artifact.deviations[2]) == (0.0, 1.0, 1.0)


class Liar(TrainerLibrary):
    """A library whose model is not what it says of one row."""

    def takes_null(self, trainer: Trainer) -> bool:
        return False

    def train(self, trainer: Trainer, inputs: Floats, truths: Truths) -> Learned:
        scores = np.full(len(inputs), 0.5)
        scores[7] += 1e-5
        return Learned(form=Form.LINEAR, coefficients=np.zeros(COUNT), scores=scores, libraries=(("liar", "1"),))


def test_a_model_that_is_scored_differently_is_not_registered() -> None:
    with pytest.raises(InputError) as caught:
        trained(hr.logistic_regression(), numbers_table(100, COUNT, seed=6), Liar())
    assert (caught.value.code, caught.value.facts["row"]) == ("HR-0608", 7)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda table: table.drop_columns(["x3"]),
        lambda table: table.drop_columns(["truth"]),
        lambda table: table.set_column(0, "x0", table["x0"].cast(pa.float32())),
        lambda table: table.set_column(COUNT, "truth", pa.array([None, *table["truth"].to_pylist()[1:]], pa.bool_())),
        lambda table: table.set_column(COUNT, "truth", pa.array([False] * table.num_rows)),
        lambda table: table.slice(0, 0),
    ],
)
def test_a_table_that_does_not_fit_is_refused(spoil: object) -> None:
    with pytest.raises(SchemaError) as caught:
        trained(hr.decision_tree(), spoil(numbers_table(100, COUNT, seed=7)))
    assert caught.value.code == "HR-0607"


def test_what_the_library_refuses_is_said() -> None:
    with pytest.raises(InputError) as caught:
        trained(hr.xgboost(), numbers_table(100, COUNT, seed=8, scales=(1e300, 1.0)))
    assert caught.value.code == "HR-0612"


def test_fingerprints_of_all_views_are_wanted() -> None:
    from tests.unit.models.lender import fraud_model

    with pytest.raises(UsageError) as caught:
        train(fraud_model(hr.xgboost()), pa.table({}), training_set="t", fingerprint="f", views={"merchant_risk": "1"})
    assert caught.value.code == "HR-0613"


def test_served_over_a_row_as_trained_over_columns() -> None:
    """Fields, features and expressions of a request, as physical values, score what their columns scored."""
    from headrace.core.codec import physical_list
    from headrace.models.inputs import derive
    from headrace.models.serve import ServedModel
    from tests.unit.models.lender import fraud_model

    model = fraud_model(hr.xgboost(n_estimators=5))
    names = tuple(dict.fromkeys(r.path for i in model.inputs for r in _reads(i.expr)))
    columns = _columns(400)
    table = pa.Table.from_batches([derive(model, columns, rows=400)])
    table = table.append_column("charged_back", pa.array(np.arange(400) % 3 == 0))
    views = {"customer_activity": "a", "merchant_risk": "b"}
    result = train(model, table, training_set="t", fingerprint="f", views=views)
    served = ServedModel(model, result.artifact, names)
    assert served.views == views and served.id == result.artifact.id
    rows = list(zip(*(physical_list(columns[name]) for name in names), strict=True))
    assert [served.score(row) for row in rows] == result.scores.tolist()
    shares = np.array([served.contributions(row) for row in rows])
    margins = served.base + shares.sum(axis=1)
    assert 1 / (1 + np.exp(-margins)) == pytest.approx(result.scores, abs=1e-6)
    for row, found in zip(rows, shares, strict=True):
        raising = served.raised_by(row)
        assert set(raising) == set(np.flatnonzero(found > 1e-9).tolist())
        assert found[list(raising)].tolist() == sorted(found[list(raising)].tolist(), reverse=True)
    with pytest.raises(DefinitionError) as caught:
        ServedModel(
            fraud_model(hr.xgboost(), features=[i.expr.named(i.name) for i in model.inputs[1:]]), result.artifact, names
        )
    assert caught.value.code == "HR-0610"


def _reads(expr: object) -> list[object]:
    from headrace.core.expr import references

    return list(references(expr))


def _columns(rows: int) -> dict[str, pa.Array]:
    from headrace.core.codec import decimals, instants
    from headrace.core.schema import decimal

    random = np.random.default_rng(9)
    whole = random.integers(-(10**11), 10**11, rows)
    sums = pa.array([None if i % 7 == 0 else 10**20 + i for i in range(rows)], pa.decimal128(38, 0))
    wide = pa.Array.from_buffers(pa.decimal128(38, 2), rows, sums.buffers())
    return {
        "applications.amount": decimals(whole, decimal(12, 2)),
        "applications.trusted": pa.array([[True, False, None][i % 3] for i in range(rows)]),
        "applications.created_at": instants(random.integers(0, 10**15, rows)),
        "customer_activity.count_1d": pa.array(random.integers(0, 9, rows)),
        "customer_activity.count_7d": pa.array(random.integers(0, 99, rows)),
        "customer_activity.mean_amount_7d": pa.array(random.normal(size=rows), mask=random.random(rows) < 0.2),
        "customer_activity.sum_amount_7d": wide,
        "customer_activity.time_since_last": pa.array(random.integers(0, 2**62, rows), mask=random.random(rows) < 0.2),
        "merchant_risk.charged_back_rate_30d": pa.array(random.random(rows)),
    }
