"""The catalog in the log: one internal topic, one event a change. Touches the log through its port."""

from __future__ import annotations

import json
from collections.abc import Sequence

from headrace.catalog.define import Catalog
from headrace.catalog.plan import Change, Step, applied
from headrace.core import schema
from headrace.core.points import Partition
from headrace.core.times import Instant
from headrace.log.define import Topic
from headrace.log.port import Append, Log

TOPIC = Topic(
    "headrace.catalog",
    key="definition",
    fields={
        "definition": schema.field(schema.string, required=True),
        "step": schema.field(schema.string, required=True),
        "at": schema.field(schema.timestamp, required=True),
    },
    description="Every change of what is in force, in order; the catalog is their fold.",
)


class CatalogStore:
    """Reads and changes what is in force."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def read(self) -> Catalog:
        catalog = Catalog()
        for state in self._log.topics():
            if state.topic.name != TOPIC.name:
                continue
            for batch in self._log.read(state.partitions[0].partition, 0):
                for text in batch.column("step").to_pylist():
                    catalog = applied(catalog, _step(text))
        return catalog

    def append(self, steps: Sequence[Step], *, at: Instant) -> None:
        """All of them, in one append."""
        if not steps:
            return
        partition: Partition = self._log.declare(TOPIC).partitions[0].partition
        rows = [(f"{step.kind} {step.name}", _text(step), int(at)) for step in steps]
        self._log.append([Append(partition=partition, rows=rows)])


def _text(step: Step) -> str:
    said = {
        "change": step.change.value,
        "kind": step.kind,
        "name": step.name,
        "version": step.version,
        "expects": step.expects,
        "fingerprint": step.fingerprint,
        "meaning": step.meaning,
        "because": list(step.because),
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _step(text: str) -> Step:
    said = json.loads(text)
    return Step(
        change=Change(said["change"]),
        kind=said["kind"],
        name=said["name"],
        version=said["version"],
        expects=said["expects"],
        fingerprint=said["fingerprint"],
        meaning=said["meaning"],
        because=tuple(said["because"]),
    )
