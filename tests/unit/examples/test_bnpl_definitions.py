"""The lender's definitions: they load, fit the generator's tables, and say a reason for every input that may be one."""

from __future__ import annotations

import pytest

from headrace.catalog.run import load_definitions
from headrace.core.errors import DefinitionError
from headrace.core.expr import describe
from headrace.features.define import count, rate
from headrace.runtime.definitions import CLASSES, Definitions
from tests.unit.examples.bnpl import EXAMPLE, load


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return Definitions.of(load_definitions(EXAMPLE, CLASSES))


def test_each_topic_has_the_columns_that_are_generated(definitions: Definitions) -> None:
    generate = load("generate")
    world = generate.generate(generate.Options(scale=0.01))
    assert set(world.tables) == set(generate.TOPICS) == set(definitions.topics)
    for name, table in world.tables.items():
        schema = definitions.topic(name).schema
        assert set(table.column_names) == {*schema.names, "arrived_at"}, name
        for field in schema:
            assert table.schema.field(field.name).type == field.type.arrow, f"{name}.{field.name}"


def test_every_input_of_both_models_has_a_reason_or_is_nobodys(definitions: Definitions) -> None:
    checkout = definitions.decision("checkout")
    assert [model.name for model in checkout.models] == ["fraud", "default"]
    said = dict(checkout.reasons)
    unsaid = {one.name for model in checkout.models for one in model.inputs if describe(one.expr) not in said}
    assert unsaid == {"hour_created_at", "web"}


def test_every_reason_is_said_in_both_languages_and_differently(definitions: Definitions) -> None:
    checkout = definitions.decision("checkout")
    texts = [checkout.text(code, language) for code in checkout.codes for language in ("en", "de")]
    assert all(texts)
    assert len(set(texts)) == 2 * len(checkout.codes)


def test_a_stricter_policy_is_asked_beside_it_and_answers_nobody(definitions: Definitions) -> None:
    (challenger,) = definitions.decision("checkout").challengers
    assert (challenger.decision.name, challenger.share) == ("stricter", 0)


def test_a_label_is_read_by_no_window_that_does_not_wait_for_it(definitions: Definitions) -> None:
    waits = definitions.view("merchant").feature("charged_back_rate_90d").window
    assert waits.delay == definitions.labels["charged_back"].maturity  # type: ignore[union-attr]  # a sliding window
    with pytest.raises(DefinitionError) as refused:
        type(definitions.view("merchant"))(
            "hasty",
            entity="merchant_id",
            source=definitions.topic("applications"),
            features=[rate(definitions.labels["charged_back"]).over("90d", delay="32d"), count().over("1d")],
        )
    assert refused.value.code == "HR-0202"
