"""Who holds which part of views over derived topics, as they say in the log. Touches the log and a thread.

The one idea: whoever has read a part says so, and whoever said it last is asked. Nobody is asked where it is, as
requests would wait for a coordinator that moves; and no claim is needed, as an answer carries its cut (SEMANTICS 5.2):
who is asked in vain costs one view of one decision.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from headrace.core import schema
from headrace.core.errors import HeadraceError
from headrace.core.points import Partition
from headrace.log.define import Topic
from headrace.log.port import OFFSET, Append, Log

LOOK_SECONDS = 0.5  # between two looks at what others said, and at what is to be said
AGAIN_SECONDS = 3_600.0  # what is held is said again: a log that forgets after days never forgets who is there
TOPIC = Topic(
    "headrace.holders",
    key="topic",
    retention="2d",
    fields={
        "topic": schema.field(schema.string, required=True),
        "partition": schema.field(schema.int64, required=True),
        "address": schema.field(schema.string, required=True),
    },
    description="Who answers for which partition of views over derived topics; the last one counts.",
)

_logger = logging.getLogger(__name__)


class Holders:
    """One process's. name: its address. held: what it holds now, partitions by topic."""

    def __init__(self, log: Log, name: str, held: Callable[[], Mapping[str, frozenset[int]]]) -> None:
        """Declares the topic. Raises: LogError."""
        self._log = log
        self._name = name
        self._held = held
        self._partition: Partition = log.declare(TOPIC).partitions[0].partition
        self._next: int | None = None
        self._known: dict[tuple[str, int], str] = {}
        self._said: dict[tuple[str, int], float] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-holders", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def holder(self, topic: str, index: int) -> str | None:
        """Who said last that it holds a partition; None where nobody did, or this process. Asks nobody."""
        found = self._known.get((topic, index))
        return None if found == self._name else found

    def look(self) -> None:
        """Read what was said since, and say what is new here. Raises: LogError."""
        self._read()
        held = {(topic, index) for topic, indices in self._held().items() for index in indices}
        now = time.monotonic()
        self._said = {part: at for part, at in self._said.items() if part in held}
        new = sorted(part for part in held if now - self._said.get(part, -AGAIN_SECONDS) >= AGAIN_SECONDS)
        if new:
            rows = [(topic, index, self._name) for topic, index in new]
            self._log.append([Append(partition=self._partition, rows=rows)], atomic=False)
            self._said.update(dict.fromkeys(new, now))

    def _read(self) -> None:
        if self._next is None:
            states = {state.topic.name: state for state in self._log.topics()}
            self._next = states[TOPIC.name].partitions[0].start
        for batch in self._log.read(self._partition, self._next):
            columns = (batch.column(name).to_pylist() for name in ("topic", "partition", "address"))
            self._known.update({(topic, index): address for topic, index, address in zip(*columns, strict=True)})
            self._next = int(batch.column(OFFSET)[-1].as_py()) + 1

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self.look()
            except HeadraceError as error:
                _logger.warning("who holds views is not known: %s", error, extra={"code": error.code})
            self._closing.wait(LOOK_SECONDS)
