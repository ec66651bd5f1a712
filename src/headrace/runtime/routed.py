"""Views that are held by partition, asked wherever they are held (decisions.port.RemoteViews). Asks through a port.

The one idea: whose value is asked says the partition, the group says who holds it, and one message a process carries
all that waits for it; what this process holds is answered by the same path, without a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass

from headrace.core.codec import partition_of
from headrace.core.errors import StateError
from headrace.core.expr import Reference
from headrace.core.points import Cut, Partition
from headrace.core.times import Clock, Duration, Instant
from headrace.decisions.held import OWNER_AWAY, TIMEOUT, TOO_OLD
from headrace.decisions.plan import Answer
from headrace.decisions.port import HeldAnswer, HeldQuestion, Row
from headrace.features.define import entity_expression
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.runtime.holding import NOBODY, Holding, PartAnswer, PartQuestion

READ_SECONDS = 2.0  # of a plain read, which has no budget


class Routed:
    """The views of one decision. Any thread may ask."""

    def __init__(
        self,
        holding: Holding,
        plans: Sequence[ViewPlan],
        request: Topic,
        *,
        partitions: Callable[[str], int],
        clock: Clock,
    ) -> None:
        """plans: fresh, of views that are held by partition. partitions: how many a derived topic has.

        Raises: DefinitionError HR-0540 where the requests name no entity of a view."""
        self._holding = holding
        self._clock = clock
        self._views = {plan.view.name: _View.of(plan, request, partitions) for plan in plans}

    def ask(self, questions: Sequence[HeldQuestion], *, within: Duration) -> Sequence[HeldAnswer]:
        began, asked_at = time.monotonic(), self._clock.now()
        parts = [self._views[one.view].question(one) for one in questions]
        asked = [part for part in parts if part is not None]
        came = iter(gather(self._holding, asked, within=within.micros / 1e6))
        answers = []
        for one, part in zip(questions, parts, strict=True):
            if part is None:
                nobodys = self._views[one.view].nobody(one.t)
                answers.append(HeldAnswer(answer=nobodys, cut=Cut(), proven=asked_at))
            else:
                answers.append(_told(part, next(came), asked_at))
        seconds = time.monotonic() - began
        for one, answer in zip(questions, answers, strict=True):
            self._holding.count(one.view, answer.absent or "answered", seconds)
        return answers


def gather(
    holding: Holding, questions: Sequence[PartQuestion], *, within: float, reading: bool = False
) -> list[PartAnswer]:
    """An answer each, in order, of whoever holds it: one message a process, all at the same time. within: seconds."""
    until, elsewhere = time.monotonic() + within, holding.elsewhere
    found = [NOBODY] * len(questions)
    by: dict[str | None, list[int]] = {}
    held = {topic: holding.held(topic) for topic in {one.topic for one in questions}}
    for place, one in enumerate(questions):
        where: str | None = ""  # here
        if one.index not in held[one.topic]:
            where = None if elsewhere is None else elsewhere.holder(one.topic, one.index)
        by.setdefault(where, []).append(place)
    waiting: dict[Future[Sequence[PartAnswer]], list[int]] = {}
    for address, places in by.items():
        if address and elsewhere is not None:
            asked = [questions[place] for place in places]
            waiting[elsewhere.ask(address, asked, within=within, reading=reading)] = places
    here = by.get("", [])
    for place, came in zip(here, holding.answer([questions[place] for place in here]), strict=True):
        found[place] = came
    if waiting:
        wait(waiting, timeout=max(0.0, until - time.monotonic()))
    for future, places in waiting.items():
        for place, came in zip(places, _came(future, len(places)), strict=True):
            found[place] = came
    return found


class HeldReads:
    """Plain reads of views that are held by partition. Any thread may read."""

    def __init__(
        self,
        holding: Holding,
        plans: Sequence[ViewPlan],
        *,
        fingerprints: Mapping[str, str],
        partitions: Callable[[str], int],
        clock: Clock,
    ) -> None:
        """As `Routed`. fingerprints: of the views."""
        self._holding, self._fingerprints, self._partitions, self._clock = holding, fingerprints, partitions, clock
        self._plans = {plan.view.name: plan for plan in plans}

    def __contains__(self, view: str) -> bool:
        return view in self._plans

    def read(
        self, view: str, entities: Sequence[Hashable], *, t: Instant | None = None, within: float = READ_SECONDS
    ) -> tuple[Instant, Cut, list[Answer]]:
        """As `runtime.reading.Reader.read`; each partition has a cut of its own. Raises: StateError HR-0541 (TOO_OLD),
        HR-0552 where nobody answers for one of them."""
        at = self._clock.now() if t is None else t
        topic, key = self._plans[view].derived, key_place(self._plans[view])
        assert topic is not None, "held by partition"
        questions = [
            PartQuestion(
                topic=topic.name,
                index=partition_of(_key(entity, key), self._partitions(topic.name)),
                view=view,
                fingerprint=self._fingerprints[view],
                t=at,
                entity=entity,
            )
            for entity in entities
        ]
        cut: dict[Partition, int] = {}
        answers = []
        for one, found in zip(questions, gather(self._holding, questions, within=within, reading=True), strict=True):
            if found.answer is None or found.at is None:
                raise _unread(view, one.index, found.absent or OWNER_AWAY)
            cut[Partition(one.topic, found.incarnation, one.index)] = found.at
            answers.append(found.answer)
        return at, Cut.of(cut), answers


def key_place(plan: ViewPlan) -> int | None:
    """The place of the derived topic's key among the parts of the view's entity; None where it is the only one."""
    topic, (emission,) = plan.derived, plan.view.sources.emissions
    assert topic is not None, "held by partition"
    parts = [entity_expression(emission, part, plan.view.name) for part in plan.view.entity]
    wanted = f"{topic.name}.{topic.key}"
    keyed = [at for at, part in enumerate(parts) if isinstance(part, Reference) and part.path == wanted]
    return None if len(parts) == 1 else keyed[0]


def _key(entity: Hashable, place: int | None) -> int | str:
    return entity if place is None else entity[place]  # type: ignore[index, return-value]  # a tuple of several parts


def _unread(view: str, index: int, why: str) -> StateError:
    if why == TOO_OLD:
        return StateError(
            "HR-0541",
            f"view {view!r} no longer holds what this read would see (TOO_OLD)",
            hint="replay it from the log",
        )
    return StateError(
        "HR-0552",
        f"nobody answers for partition {index} of what view {view!r} reads",
        detail=why,
        hint="ask again in a moment: who holds it is being found, or reads it",
        retryable=True,
        view=view,
    )


@dataclass(frozen=True, slots=True)
class _View:
    """How one view is asked of a request. own: the topic is derived of the request's. key: the place of the topic's key
    among the entity's parts."""

    topic: Topic
    own: bool
    entity_of: Callable[[Row], Hashable | None]
    key: int | None
    partitions: Callable[[str], int]
    empty: FeatureState
    order: tuple[int, ...]

    @classmethod
    def of(cls, plan: ViewPlan, request: Topic, partitions: Callable[[str], int]) -> _View:
        topic, view = plan.derived, plan.view
        assert topic is not None and topic.derivation is not None, "held by partition"
        own, empty = topic.derivation.of == request.name, FeatureState([plan])
        return cls(
            topic=topic,
            own=own,
            entity_of=empty.views[view.name].entity_of(request),
            key=key_place(plan),
            partitions=partitions,
            empty=empty,
            order=tuple(request.schema.names.index(name) for name in topic.schema.names) if own else (),
        )

    def question(self, one: HeldQuestion) -> PartQuestion | None:
        """None where the request has no entity."""
        entity = self.entity_of(one.row)
        if entity is None or (isinstance(entity, tuple) and None in entity):
            return None
        return PartQuestion(
            topic=self.topic.name,
            index=partition_of(_key(entity, self.key), self.partitions(self.topic.name)),
            view=one.view,
            fingerprint=one.fingerprint,
            t=one.t,
            row=tuple([one.row[place] for place in self.order]) if self.own else None,
            source=one.request.index,
            offset=one.offset,
            entity=None if self.own else entity,
        )

    def nobody(self, t: Instant) -> Answer:
        """The values of what is nobody's, which nobody need be asked for."""
        (view,) = self.empty.views
        return self.empty.read(view, None, t)


def _told(part: PartQuestion, found: PartAnswer, asked_at: Instant) -> HeldAnswer:
    """proven: by the clock of who asked, before it did, so that two clocks are never compared."""
    cut = Cut() if found.at is None else Cut.of({Partition(part.topic, found.incarnation, part.index): found.at})
    absent = OWNER_AWAY if found.answer is None and found.absent is None else found.absent
    return HeldAnswer(answer=found.answer, cut=cut, proven=Instant(asked_at - found.age), absent=absent)


def _came(future: Future[Sequence[PartAnswer]], count: int) -> Sequence[PartAnswer]:
    """What came in time."""
    if not future.done():
        future.cancel()
        return [PartAnswer(absent=TIMEOUT)] * count
    try:
        found = future.result()
    except (OSError, ValueError, CancelledError):
        return [NOBODY] * count
    return found if len(found) == count else [NOBODY] * count
