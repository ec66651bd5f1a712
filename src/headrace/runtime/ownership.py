"""Which partitions of requests a serving process decides: those that its group gives it. Touches the log; has three
threads.

The one idea: membership only says who should decide; the claim in the log says who does (docs/KAFKA.md K1). So a member
that is told late, or not at all, does no harm: what it decides after another's claim is void, and it learns so from the
log. One thread shows signs of life, one claims, as a claim reads and may take long, one reads what others own, so that
requests find them and their partitions can be taken over soon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headrace.clients.kafka.port import KafkaClient, Member, Place
from headrace.core.errors import HaltedError, HeadraceError, LogError
from headrace.core.times import Duration

GROUP = "headrace.serve"  # behind the log's prefix
POLL = Duration.parse("250ms")  # between two signs of life: many in a session timeout
KEEP_SECONDS = 60.0
MEASURE_SECONDS = 5.0  # between two looks at the stable offsets
RETRY_SECONDS = 0.5  # after a claim that failed, or was lost while the group still gives the partition
# Between two times that what others own is read: as a rule, and where a request found nobody.
STAND_BY_SECONDS, STAND_BY_SECONDS_MIN = 1.0, 0.1

_logger = logging.getLogger(__name__)


class Owner(Protocol):
    """What decides one decision's requests (decisions.owners.OwnedDecider)."""

    @property
    def owned(self) -> frozenset[int]: ...

    def claim(self, index: int) -> int: ...

    def release(self, index: int) -> None: ...

    def notice(self) -> None: ...

    def owner_of(self, index: int) -> str | None: ...

    def stand_by(self) -> None: ...


class Ownership:
    """One process's. `begin` joins, `leave` gives everything up; in between partitions come and go."""

    def __init__(
        self,
        client: KafkaClient,
        *,
        prefix: str,
        name: str,
        session: Duration,
        topics: Mapping[str, str],
        owners: Callable[[], Mapping[str, Owner]],
        held: Sequence[str] = (),
        unfit: Callable[[], LogError | None] = lambda: None,
        keep: Callable[[], object] = lambda: None,
    ) -> None:
        """name: the address that others send requests to. session: after which the group gives a silent member's
        partitions to others. topics: decision -> its requests' topic. owners: decision -> what decides it now. held:
        other topics whose partitions the group shares, too: nobody claims those. unfit: why this process may decide
        nothing; then it leaves the group until it may. keep: called every minute; writes down what later readers need
        (docs/KAFKA.md K5)."""
        self._client = client
        self._prefix = prefix
        self._name = name
        self._session = session
        self._topics = dict(topics)
        self._owners = owners
        self._unfit = unfit
        self._keep = keep
        self._kept = time.monotonic()
        self._held = tuple(held)
        self._member: Member | None = None
        self._given: frozenset[Place] = frozenset()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._draining = threading.Event()
        self._threads: list[threading.Thread] = []
        self._looking = threading.Event()
        self._began = 0.0
        self._successors: dict[str, Owner] = {}
        # The stable offset that others' records lie behind, and since when.
        self._stuck: dict[Place, tuple[int, float]] = {}
        self._measured = -MEASURE_SECONDS
        self.settled = False  # every partition that was given has been claimed at least once, or others have them all

    def begin(self) -> None:
        """Join the group. Raises: LogError HR-0340 to HR-0342."""
        self._join()
        self._began = time.monotonic()
        for run, name in (
            (self._follow, "headrace-member"),
            (self._own, "headrace-claims"),
            (self._look, "headrace-standby"),
        ):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _join(self) -> Member:
        names = sorted({self._prefix + topic for topic in (*self._topics.values(), *self._held)})
        self._member = self._client.member(self._prefix + GROUP, names, name=self._name)
        return self._member

    def leave(self) -> None:
        """Give everything up, and say so to the group. May be called twice."""
        self._closing.set()
        self._wake.set()
        self._looking.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for owner in self._owners().values():
            for index in owner.owned:
                owner.release(index)
        if self._member is not None:
            self._member.leave()
            self._member = None

    def drain(self) -> None:
        """Leave the group for good, so that others claim what it gave; what nobody has claimed yet is decided here.
        What others own is read on, so that requests find them."""
        self._draining.set()
        self._wake.set()

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def look_soon(self) -> None:
        """Somebody was not found: what others own is read again in a moment."""
        self._looking.set()

    def given(self, topic: str) -> frozenset[int]:
        """The partitions of a topic that the group gives this process."""
        name = self._prefix + topic
        return frozenset(place.partition for place in self._given if place.topic == name)

    @property
    def stuck_seconds(self) -> float:
        """For how long records of partitions that are given lie behind a stable offset that does not move: somebody's
        open transaction, which keeps requests from being decided (docs/KAFKA.md K4)."""
        now = time.monotonic()
        return max((now - since for _, since in list(self._stuck.values())), default=0.0)

    def take(self, decision: str, owner: Owner) -> None:
        """Claim for a decider that takes another's place, before it gets its first request; what that other has under
        way is void from then on, and asked again."""
        self._successors[decision] = owner
        present = self._owners().get(decision)
        left = present.owned if present is not None and self.draining else frozenset()
        for index in self._wanted(decision) | left:
            owner.claim(index)

    def serve(self, decision: str, topic: str) -> None:
        """A decision that is declared later, over a topic that the group shares already; over another one it is decided
        when the process starts again."""
        self._topics.setdefault(decision, topic)
        self._wake.set()

    # --- threads ---

    def _follow(self) -> None:
        while not self._closing.is_set():
            try:
                given = self._places()
            except LogError as error:
                _logger.warning("the group cannot be asked: %s", error, extra={"code": error.code})
                self._closing.wait(RETRY_SECONDS)
                continue
            if given != self._given:
                _logger.info("partitions given: %s", sorted(f"{p.topic}/{p.partition}" for p in given))
                self._given = given
                self._wake.set()

    def _places(self) -> frozenset[Place]:
        """What the group gives this process: nothing while its clock is wrong, so that others decide meanwhile, and
        nothing once it is drained."""
        error = self._unfit()
        if error is None and not self.draining:
            return (self._member or self._join()).poll(timeout=POLL).places
        if self._member is not None:
            if error is not None:
                _logger.error("this process decides nothing: %s", error, extra={"code": error.code})
            member, self._member = self._member, None
            member.leave()
        self._closing.wait(POLL.micros / 1e6)
        return frozenset()

    def _look(self) -> None:
        """Reads what others own. Nobody is asked for it: requests would wait for a coordinator that moves, and in
        librdkafka 2.16 a group's description that meets a lost connection may end the process."""
        while not self._closing.is_set():
            for decision, owner in self._owners().items():
                try:
                    owner.stand_by()
                except HeadraceError as error:
                    _logger.warning("decision %s: what others own: %s", decision, error, extra={"code": error.code})
            self._closing.wait(STAND_BY_SECONDS_MIN)
            self._looking.wait(STAND_BY_SECONDS - STAND_BY_SECONDS_MIN)
            self._looking.clear()

    def _own(self) -> None:
        """Claims what is given and not owned, again and again: a claim may be lost to another while the group still
        gives the partition."""
        while not self._closing.is_set():
            self._wake.wait(RETRY_SECONDS)
            self._wake.clear()
            if self._closing.is_set():
                return
            fine = True
            for decision, owner in {**self._owners(), **self._successors}.items():
                fine &= self._settle(decision, owner)
            self.settled = self.settled or (fine and (bool(self._given) or self._spare()))
            self._measure()
            self._keep_on()

    def _keep_on(self) -> None:
        if time.monotonic() - self._kept < KEEP_SECONDS:
            return
        self._kept = time.monotonic()
        try:
            self._keep()
        except HeadraceError as error:
            _logger.warning("where readers may begin is not written down: %s", error, extra={"code": error.code})

    def _spare(self) -> bool:
        """Whether the group gives this process nothing, and has had the time to: there are more processes than
        partitions, and others decide all of them."""
        return time.monotonic() - self._began > self._session.micros / 1e6

    def _measure(self) -> None:
        if time.monotonic() - self._measured < MEASURE_SECONDS:
            return
        self._measured, places = time.monotonic(), sorted(self._given)
        try:
            spans = dict(zip(places, self._client.spans(places), strict=True))
        except HeadraceError as error:
            _logger.warning("offsets cannot be asked for: %s", error, extra={"code": error.code})
            return
        before = self._stuck
        self._stuck = {
            place: before[place] if before.get(place, (-1, 0.0))[0] == span.end else (span.end, self._measured)
            for place, span in spans.items()
            if span.high > span.end
        }

    def _settle(self, decision: str, owner: Owner) -> bool:
        wanted = self._wanted(decision)
        if not self.draining or self._unfit() is not None:
            for index in owner.owned - wanted:
                owner.release(index)
        for index in sorted(wanted - owner.owned):
            if self._closing.is_set():
                return False
            try:
                owner.claim(index)
            except HeadraceError as error:
                _logger.warning(
                    "decision %s: partition %d is not claimed yet: %s",
                    decision,
                    index,
                    error,
                    extra={"code": error.code},
                )
                if not isinstance(error, HaltedError):
                    return False  # the others may be claimed; that it is halted is told to who asks for it
        self._notice(decision, owner)
        return True

    def _notice(self, decision: str, owner: Owner) -> None:
        """What another claimed is not this process's any more; if the group gives it all the same, it is claimed again
        the next time, when the group may have said otherwise."""
        try:
            owner.notice()
        except HeadraceError as error:
            _logger.warning("decision %s: what others claimed: %s", decision, error, extra={"code": error.code})

    def _wanted(self, decision: str) -> frozenset[int]:
        return self.given(self._topics.get(decision, ""))
