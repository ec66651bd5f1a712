"""A Feast repository with the handbook's 15 features, and its online store filled; runs in an environment of its own,
without headrace.

    python bench/_serving_peers_feast.py FOLDER        then, in FOLDER: feast serve

FOLDER holds customer.parquet and terminal.parquet: the entity's id, its six features, event_timestamp. The 12 windowed
features are brought to the SQLite online store by `materialize`; the three that are made of the request are an
on-demand view over dictionaries (`mode="python"`), which needs no data frame. A feature service is not declared: asked
by it the server was slower than when the request lists the features. Prints one JSON object: version, seconds (of
materialize).
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import Any

import feast
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Bool, Float64, Int64
from feast.value_type import ValueType

DAYS = ("1d", "7d", "30d")
ENTITIES = {
    name: Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.INT64) for name in ("customer", "terminal")
}
STORE = """project: handbook
provider: local
registry: data/registry.db
online_store:
  type: sqlite
  path: data/online_store.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""


def main(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "feature_store.yaml").write_text(STORE)
    store = FeatureStore(str(folder))
    customer = view(folder, "customer", "mean_tx_amount")
    terminal = view(folder, "terminal", "tx_fraud_rate")
    store.apply([*ENTITIES.values(), customer, terminal, of_request()])
    begun = time.perf_counter()
    store.materialize(dt.datetime(2000, 1, 1, tzinfo=dt.UTC), dt.datetime.now(dt.UTC))
    print(json.dumps({"version": feast.__version__, "seconds": time.perf_counter() - begun}))


def view(folder: Path, name: str, value: str) -> FeatureView:
    counts = [Field(name=f"{name}_count_{days}", dtype=Int64) for days in DAYS]
    values = [Field(name=f"{name}_{value}_{days}", dtype=Float64) for days in DAYS]
    source = FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp")
    return FeatureView(name=name, entities=[ENTITIES[name]], schema=counts + values, source=source, ttl=dt.timedelta(0))


def of_request() -> Any:
    request = RequestSource(name="request", schema=[Field(name="amount", dtype=Float64), Field(name="at", dtype=Int64)])

    @on_demand_feature_view(
        sources=[request],
        schema=[
            Field(name="tx_amount", dtype=Float64),
            Field(name="weekend", dtype=Bool),
            Field(name="night", dtype=Bool),
        ],
        mode="python",
    )
    def asked(inputs: dict[str, Any]) -> dict[str, Any]:
        seconds = inputs["at"]
        return {
            "tx_amount": inputs["amount"],
            "weekend": [(at // 86_400 + 3) % 7 >= 5 for at in seconds],  # 1970-01-01 was a Thursday
            "night": [at // 3_600 % 24 <= 6 for at in seconds],
        }

    return asked


if __name__ == "__main__":
    main(Path(sys.argv[1]))
