"""A re-keyer: carries one source partition over into a derived topic, exactly once. Touches the log through its port.

The one idea: what it writes and how far it has read are one transaction under a name that only one process has at a
time, so it needs no memory of its own: whoever comes next asks the name, after it fenced the one before, and goes on
there (docs/KAFKA.md K2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from headrace.core.errors import LogError, NotFoundError
from headrace.core.points import Cut, Partition
from headrace.log.port import SYSTEM_COLUMNS, Log, TopicState
from headrace.stream.plan import SourceCut, check_fields, highest, outputs, writer_name

# Of one transaction: what has come is written at once, so its size follows the load, and these bound it. 5,000 rows are
# half a second's sending of one re-keyer at most; 16 MiB leave room in what a sender may queue.
ROWS_MAX = 5_000
BYTES_MAX = 16 << 20
ABORTS_MAX = 8  # in a row, before somebody is told: a coordinator that moves costs one or two


@dataclass(slots=True, kw_only=True)
class Counts:
    """Of one source partition, since the process began. left_out: by verdict or `null_key`. at: the next source
    offset."""

    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    transactions: int = 0
    aborts: int = 0
    fenced: int = 0
    at: int | None = None


class ReKeyer:
    """Of one source partition and one derived topic. One thread at a time; made, it is the only one of its name."""

    def __init__(
        self, log: Log, derived: str, source: Partition, *, rows_max: int = ROWS_MAX, counts: Counts | None = None
    ) -> None:
        """Fences who carried this partition before, and finds where that one got to.

        Raises: NotFoundError HR-0302; LogError HR-0340 to HR-0342, HR-0303 (events were deleted before they were
        carried over), HR-0363, HR-0365; UsageError HR-0366."""
        self.source = source
        self.counts = Counts() if counts is None else counts
        self._log = log
        self._name = derived
        self._rows_max = rows_max
        self._refused = 0  # transactions in a row that had to be given up
        self._look()
        self._exclusive = log.exclusive(writer_name(self._derived.topic, self._derived.incarnation, source))
        self._reading: Iterator[pa.RecordBatch] = iter(())
        self._left: list[pa.RecordBatch] = []
        self._seek()

    @property
    def at(self) -> int:
        """The next source offset: all below is carried over, and durable."""
        return self._at

    def step(self) -> bool:
        """Carry over what has come, in one transaction; False where nothing has.

        Raises: FencedError HR-0344 (another has this name: end), LogError HR-0311 (make it anew and find out), HR-0345
        (given up too often in a row), and as when it is made. After an error it is to be closed."""
        batch = self._next()
        if batch is None:
            return False
        if not self._fits(batch):
            self._look()  # the definitions have changed, or it ends here
            self._drop()
            batch = self._next()
            if batch is None or not self._fits(batch):
                return False
        made = outputs(batch, source=self.source, derived=self._derived.topic, incarnation=self._derived.incarnation)
        try:
            self._exclusive.append(made.appends, cut=made.cut)
        except LogError as error:
            self._refused += 1
            self.counts.aborts += error.code == "HR-0345"
            if error.code != "HR-0345" or self._refused > ABORTS_MAX:
                raise
            self._seek()
            return True
        self._refused = 0
        self._at = self.counts.at = made.cut[self.source]
        self.counts.transactions += 1
        self.counts.rows += made.rows
        self.counts.left_out.update(made.left_out)
        return True

    def close(self) -> None:
        self._exclusive.close()

    # --- where it is ---

    def _look(self) -> None:
        """At the definitions in force. Raises: NotFoundError HR-0302, LogError HR-0363, HR-0365."""
        states = {state.topic.name: state for state in self._log.topics()}
        derived = states.get(self._name)
        if derived is None or derived.topic.derivation is None:
            raise NotFoundError("HR-0302", f"no derived topic {self._name!r} in the log", hint="headrace apply")
        source = states.get(derived.topic.derivation.of)
        if source is None or not source.incarnation == derived.source == self.source.incarnation:
            raise made_anew(derived)
        check_fields(source.topic, derived.topic)
        self._derived: TopicState = derived
        self._start = next((p.start for p in source.partitions if p.partition == self.source), 0)

    def _fits(self, batch: pa.RecordBatch) -> bool:
        return set(batch.schema.names[len(SYSTEM_COLUMNS) :]) == set(self._derived.topic.schema.names)

    def _seek(self) -> None:
        """To where its name got, dropping what was read and is not written."""
        committed = dict(self._exclusive.cut()).get(self.source)
        self._at = self._recovered() if committed is None else committed
        self.counts.at = self._at
        self._drop()

    def _drop(self) -> None:
        self._reading, self._left = iter(()), []

    def _recovered(self) -> int:
        """Behind the last event of this partition that the derived topic holds, or the source's start: of a name that
        committed nothing yet, or whose group the cluster forgot, as it does after a week without a commit."""
        cut = source_cut(self._log, self._derived)
        return max(self._start, cut[self.source])

    # --- reading ---

    def _next(self) -> pa.RecordBatch | None:
        """Rows that follow, as many as one transaction takes; None where nothing follows now."""
        found, self._left = self._left, []
        rows, size = sum(batch.num_rows for batch in found), sum(batch.nbytes for batch in found)
        fresh = False
        while rows < self._rows_max and size < BYTES_MAX:
            batch = next(self._reading, None)
            if batch is None:
                if rows or fresh:
                    break
                self._reading, fresh = self._log.read(self.source, self._at, rows_max=self._rows_max), True
                continue
            if found and batch.schema != found[0].schema:
                self._left = [batch]  # a field was added here
                break
            found.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
        if not rows:
            return None
        whole = found[0] if len(found) == 1 else pa.concat_batches(found)
        most = self._rows_max if size < BYTES_MAX else max(1, min(self._rows_max, rows * BYTES_MAX // size))
        if rows > most:
            self._left.insert(0, whole.slice(most))
        return whole.slice(0, most)


def made_anew(derived: TopicState) -> LogError:
    """HR-0363."""
    topic = derived.topic
    assert topic.derivation is not None, "derived"
    return LogError(
        "HR-0363",
        f"topic {topic.derivation.of!r} is not the one that {topic.name!r} is derived of",
        detail=f"expected incarnation {derived.source}; it was dropped, and perhaps made anew",
        hint=f"headrace topics drop {topic.name}, then headrace apply, derive it of what there is",
        topic=topic.name,
    )


def source_cut(log: Log, derived: TopicState) -> Cut:
    """The source cut of all that a derived topic holds: behind the highest source offset of any of its partitions.
    Reads it whole."""
    assert derived.topic.derivation is not None, "derived"
    found = []
    for held in derived.partitions:
        folded = SourceCut(of=derived.topic.derivation.of)
        for batch in log.read(held.partition, held.start):
            folded = folded.after(batch)
        found.append(folded.cut)
    return highest(found)
