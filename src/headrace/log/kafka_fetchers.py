"""Partitions that are followed, read by two fetchers: one gathers, one hurries. Touches the cluster through its client.

The one idea: who has appended waits for its own row, and everything else may come a moment later and in larger parts.
Else a broker answers each reader's fetch with each row that just came, and does little beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from headrace.clients.kafka.port import Fetched, Fetcher, KafkaClient, Place
from headrace.core.errors import HeadraceError, LogError
from headrace.core.times import ZERO, Duration

KEEP_SECONDS = 60.0  # that a partition is hurried since somebody waited for it


class Fetchers(Fetcher):
    """As one fetcher."""

    def __init__(self, client: KafkaClient, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._gathering = client.fetcher()
        self._hurrying: Fetcher | None = None
        self._hurried: dict[Place, float] = {}  # when somebody waited for it last
        self._next: dict[Place, int] = {}
        self._cool_at = 0.0

    def seek(self, place: Place, offset: int) -> None:
        self._of(place).seek(place, offset)
        self._next[place] = offset

    def drop(self, place: Place) -> None:
        self._of(place).drop(place)
        self._hurried.pop(place, None)
        self._next.pop(place, None)

    def hurry(self, places: Iterable[Place]) -> None:
        """Somebody waits for what was just appended to these, which are read already: from now on, and for a while,
        what comes is fetched at once."""
        now = self._monotonic()
        for place in places:
            if place not in self._next:
                continue  # it halted
            if place not in self._hurried:
                if self._hurrying is None:
                    self._hurrying = self._client.fetcher(eager=True)
                self._gathering.drop(place)
                self._hurrying.seek(place, self._next[place])
            self._hurried[place] = now

    def fetch(self, *, timeout: Duration, records_max: int = 10_000) -> Sequence[Fetched]:
        if self._hurrying is None or not self._hurried:
            return self._moved(self._gathering.fetch(timeout=timeout, records_max=records_max))
        self._cool()
        found = self._moved(self._gathering.fetch(timeout=ZERO, records_max=records_max))
        try:
            more = self._hurrying.fetch(timeout=ZERO if found else timeout, records_max=records_max)
        except HeadraceError:
            if not found:
                raise
            return found  # which is not given again; the error is, if it lasts
        return [*found, *self._moved(more)]

    def close(self) -> None:
        self._gathering.close()
        if self._hurrying is not None:
            self._hurrying.close()

    def _of(self, place: Place) -> Fetcher:
        return self._hurrying if place in self._hurried and self._hurrying is not None else self._gathering

    def _moved(self, found: Sequence[Fetched]) -> Sequence[Fetched]:
        self._next.update((one.place, one.next) for one in found)
        return found

    def _cool(self) -> None:
        """What nobody waited for lately is gathered again."""
        now = self._monotonic()
        if now < self._cool_at:
            return
        self._cool_at = now + KEEP_SECONDS / 4
        for place in [place for place, at in self._hurried.items() if now - at > KEEP_SECONDS]:
            assert self._hurrying is not None, "something was hurried"
            self._hurrying.drop(place)
            del self._hurried[place]
            if place in self._next:
                self._gathering.seek(place, self._next[place])


def unread(place: Place, detail: str, patience: Duration) -> LogError:
    """HR-0349."""
    return LogError(
        "HR-0349",
        f"{place.topic}/{place.partition} could not be read in time",
        detail=f"{detail} after {patience}",
        hint="is its leader up? headrace dev kafka status, or kafka-topics --describe",
        retryable=True,
    )
