"""The OpenAPI document: complete, without loose ends, and of one opinion with the validators."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.api.openapi import document
from headrace.runtime.project import open_project
from tests.e2e.shop import make

RICH = """
import headrace as hr

orders = hr.Topic("orders", key="customer", id="order", event_time="at", fields={
    "order": hr.int64, "customer": hr.int64, "amount": hr.decimal(8, 2), "whole": hr.decimal(5, 0),
    "weight": hr.field(hr.float64, minimum=0, maximum=100), "open": hr.boolean, "note": hr.string,
    "fraud": hr.field(hr.boolean, available_after="7d"), "at": hr.timestamp})
activity = hr.FeatureView("activity", entity=("customer", "note"), source=orders, features=[
    hr.count().over("1d"), hr.sum(orders.amount).over("1d"), hr.last_n(orders.amount, 2), hr.time_since_last(),
    hr.last(orders.at)])
checkout = hr.Decision("credit_check", request=orders, fallback="decline", policy=[hr.approve()])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_project(make(tmp_path_factory.mktemp("openapi"), RICH)) as project:
        return json.loads(json.dumps(document(project.definitions, ["credit_check"])))


def test_every_path_and_operation_is_there(made: Any) -> None:
    found = {(method, path): one["operationId"] for path, item in made["paths"].items() for method, one in item.items()}
    assert found == {
        ("post", "/v1/decisions/credit_check"): "decideCreditCheck",
        ("get", "/v1/decisions/{decision_id}"): "getDecision",
        ("post", "/v1/features/activity"): "readActivityBatch",
        ("get", "/v1/features/activity/{customer}/{note}"): "readActivity",
        ("post", "/v1/topics/orders/events"): "appendOrdersEvents",
        ("post", "/v1/drain"): "drain",
        ("get", "/v1/drain"): "drained",
        ("get", "/healthz"): "health",
        ("get", "/readyz"): "ready",
        ("get", "/metrics"): "metrics",
    }
    assert made["openapi"] == "3.1.0"


def test_types_are_those_of_the_topic(made: Any) -> None:
    schema = made["components"]["schemas"]["CreditCheckRequest"]
    fields = schema["properties"]
    assert "fraud" not in fields, "its truth comes later"
    assert fields["order"] == {"type": "integer", "format": "int64"}
    assert fields["amount"]["type"] == ["string", "null"]
    assert fields["weight"] == {"type": ["number", "null"], "format": "double", "minimum": 0, "maximum": 100}
    assert fields["open"]["type"] == ["boolean", "null"]
    assert (fields["at"]["type"], fields["at"]["format"]) == ("string", "date-time")
    assert schema["required"] == ["order", "customer", "at"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("field", "taken", "refused"),
    [
        ("amount", ["0", "-1.5", "999999.99", "12.50"], ["1.234", "1e3", "1234567.00", "", "+1", "x"]),
        ("whole", ["0", "-12345"], ["1.0", "123456"]),
    ],
)
def test_decimals_are_texts_of_a_pattern(made: Any, field: str, taken: list[str], refused: list[str]) -> None:
    pattern = made["components"]["schemas"]["OrdersEvent"]["properties"][field]["pattern"]
    assert all(re.search(pattern, text) for text in taken)
    assert not any(re.search(pattern, text) for text in refused)


def test_no_reference_is_loose_and_no_schema_is_unused(made: Any) -> None:
    used = set(references(made))
    assert used == {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from references(each)


def test_path_parameters_are_declared(made: Any) -> None:
    for path, item in made["paths"].items():
        for one in item.values():
            declared = {p["name"] for p in one.get("parameters", []) if p["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path)), path


def test_the_document_depends_on_the_definitions_alone(made: Any, tmp_path: Path) -> None:
    with open_project(make(tmp_path / "again", RICH)) as project:
        assert json.loads(json.dumps(document(project.definitions, ["credit_check"]))) == made
