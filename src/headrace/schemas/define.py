"""Imports: what is asked of one, and what it reports. Frozen, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headrace.core.codec import canonical_json
from headrace.core.errors import UsageError
from headrace.core.points import Partition
from headrace.core.schema import field as declare_field
from headrace.core.schema import int64, string, timestamp
from headrace.core.times import ZERO, Duration
from headrace.log.define import Payload, Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableAt:
    """The declared rule of when an imported row could be seen (SEMANTICS 1.5): `delay` after its event time, or what
    `column` of the file says."""

    delay: Duration = ZERO
    column: str | None = None

    @classmethod
    def parse(cls, text: str) -> AvailableAt:
        """From "event_time", "event_time+2h" or "column:NAME". Raises: UsageError HR-0427."""
        compact = text.replace(" ", "")
        if text.startswith("column:") and text.removeprefix("column:"):
            return cls(column=text.removeprefix("column:"))
        if compact == "event_time":
            return cls()
        if compact.startswith("event_time+"):
            return cls(delay=Duration.parse(compact.removeprefix("event_time+")))
        raise UsageError(
            "HR-0427",
            f"not a rule for available_at: {text!r}",
            detail="expected event_time, event_time+2h (any duration), or column:NAME",
        )

    def __str__(self) -> str:
        if self.column is not None:
            return f"column:{self.column}"
        return "event_time" if self.delay == ZERO else f"event_time+{self.delay}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How a file's columns become events.

    columns: the file's column of each field whose name differs. zone: the time zone of timestamps without one; None
    refuses them. available_at: the rule. round: decimal fields whose values are rounded to the field's scale, ties to
    even, instead of refused; how many were is reported. again: take a file that was imported before once more (rows
    with known ids are left out all the same). ignore: columns of the file that are meant to be left aside though they
    resemble a field. format: "parquet", "csv" or "ndjson"; None goes by the file's name. payload: how the rows lie in
    Kafka; a log in a file has its own form.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    zone: str | None = None
    available_at: AvailableAt = AvailableAt()
    round: tuple[str, ...] = ()
    again: bool = False
    ignore: tuple[str, ...] = ()
    format: str | None = None
    payload: Payload = Payload.ARROW

    def text(self) -> str:
        """What decides how a row is read, as canonical JSON: a broken import goes on only under the same."""
        return canonical_json(
            {
                "columns": dict(self.columns),
                "zone": self.zone,
                "available_at": str(self.available_at),
                "round": sorted(self.round),
                "format": self.format,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of a file. rows = taken + late + duplicates + conflicts + ahead + left_out.

    taken: accepted. late: kept, later than max_late. duplicates: known ids with equal payload, counted and not taken.
    conflicts, ahead: quarantined. left_out: available only after the import. rounded: values
    that were rounded, where asked. resumed_from: rows that an earlier, broken
    attempt had made durable. ignored: columns of the file that are no field.
    """

    topic: str
    partitions: tuple[Partition, ...]
    import_id: str
    rows: int
    taken: int
    late: int
    duplicates: int
    conflicts: int
    ahead: int
    left_out: int
    rounded: int = 0
    resumed_from: int = 0
    ignored: tuple[str, ...] = ()


class Progress(Protocol):
    """Told how far an import is. stage: "read", "check", "write". done, total: rows; total is 0 while unknown."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


# What was imported and by which rule, so that a manifest can say "declared" and a file is not taken twice unseen.
IMPORTS = Topic(
    "headrace.imports",
    key="import_id",
    description="Begun and sealed imports of files.",
    fields={
        "import_id": string,
        "topic": declare_field(string, required=True),
        "incarnation": declare_field(int64, required=True),
        "status": declare_field(string, required=True),
        "file": string,
        "sha256": declare_field(string, required=True),
        "options": declare_field(string, required=True),
        "at": declare_field(timestamp, required=True),
        "rows": int64,
        "taken": int64,
        "late": int64,
        "duplicates": int64,
        "conflicts": int64,
        "ahead": int64,
        "left_out": int64,
    },
)
BEGUN, SEALED = "begun", "sealed"
