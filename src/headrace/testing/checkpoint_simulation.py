"""One life of a served state from one seed: a log that grows, answers, checkpoints on a faulty disk, crashes, restarts.

What is checked: every value that was served before a crash is answered with the same bits after it, at the same cut; a
restart takes the newest checkpoint that is whole, never a damaged one, and one whose write returned is there; each
event of the log is in the state once; in the end the state equals one that never stopped, and the oracle. Touches
memory only.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from headrace.core.errors import StateError
from headrace.core.points import Cut, Partition
from headrace.features import checkpoint
from headrace.features.checkpoint_folder import Files
from headrace.features.checkpoint_names import CheckpointName
from headrace.features.define import FeatureView, count
from headrace.features.online import Answer
from headrace.features.plan import ViewPlan
from headrace.features.run import FeatureState
from headrace.log.define import Topic
from headrace.log.port import TAKEN
from headrace.testing.expressions import Physical
from headrace.testing.faulty_files import EndedError, Fault, FaultyFiles, Folder, Rot
from headrace.testing.generate import SECOND, Story
from headrace.testing.growing_log import GrowingLog
from headrace.testing.oracles import Event, Owners
from headrace.testing.questions import REQUESTS, Kind, Question, Tally, canonical, expected

STEPS, FAULTS_MIN = 200, 3
PLACE = Path("checkpoints/views")
NUMBERS = 1_000_000  # more checkpoints than a life writes
# A crash tells most; the others show that an error leaves what was there.
_CHOICES = (*[Fault.CUT] * 6, *[Fault.KILL] * 3, *[Fault.FULL] * 2, *[Fault.SYNC] * 2, *[Fault.READ] * 2)
_FAULTS = (*_CHOICES, Fault.FAIL, Fault.TORN)

Frontier = Mapping[Partition, int]


class Write(Protocol):
    """`features.checkpoint.write`."""

    def __call__(
        self, state: FeatureState, folder: Path, /, *, fingerprints: Mapping[str, str], files: Files | None = None
    ) -> str: ...


class Restore(Protocol):
    """`features.checkpoint.restore`."""

    def __call__(
        self,
        plans: Sequence[ViewPlan],
        folder: Path,
        /,
        *,
        fingerprints: Mapping[str, str],
        topics: Iterable[Topic] = (),
        files: Files | None = None,
    ) -> FeatureState | None: ...


class CheckpointDisk(FaultyFiles):
    """A faulty disk that knows which folders are checkpoints, and how far each is."""

    def numbered(self, checkpoints: Path) -> list[tuple[int, Folder]]:
        """The checkpoints there, the furthest last; the number is of its rank."""
        folder = self._find(checkpoints)
        found = []
        for name, held in ({} if folder is None else folder.seen).items():
            parsed = CheckpointName.parse(name)
            if parsed is not None and isinstance(held, Folder):
                found.append((parsed.progress * NUMBERS + parsed.number, held))
        return sorted(found, key=lambda one: one[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is simulated. Tests put a broken one in a place and see it caught. rots: what may happen to files at rest,
    but for those whose name ends in one of `spared`."""

    write: Write = checkpoint.write
    restore: Restore = checkpoint.restore
    files: type[CheckpointDisk] = CheckpointDisk
    rots: tuple[Rot, ...] = tuple(Rot)
    spared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked, and where the state stood. request: None is a plain read of `entity`. place: of a request that is
    in the log."""

    frontier: Frontier
    view: str
    t: int
    entity: Hashable
    request: tuple[Physical, ...] | None
    place: tuple[Partition, int] | None


@dataclass(slots=True)
class Outcome:
    """What a seed did, and what it found: all of `VIOLATIONS`, and `others`, must be 0.

    from_newest, from_older, from_nothing: restarts by what they began with. refused_corrupt: damaged checkpoints that
    were passed over. compared: values served before a crash, asked again after it; a value is all of a view's features.
    lost, twice: events of the log that a restarted state lacks, or holds more than once. differing: values served
    before a crash, or equal to what a state that never stopped or the oracle says, that were different after it.
    corrupt_loaded: damaged checkpoints that were taken for whole ones. checkpoints_lost: those that were there, whole
    or acknowledged, and were not taken. told: some of what differs, in words.
    """

    seed: int
    steps: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, int]] = field(default_factory=Counter)
    events: int = 0
    crashes: int = 0
    restarts: int = 0
    from_newest: int = 0
    from_older: int = 0
    from_nothing: int = 0
    checkpoints: int = 0
    checkpoints_failed: int = 0
    refused_corrupt: int = 0
    served: int = 0
    compared: int = 0
    compared_at_end: int = 0
    refused_old: int = 0
    lost: int = 0
    twice: int = 0
    differing: int = 0
    corrupt_loaded: int = 0
    checkpoints_lost: int = 0
    others: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @property
    def violations(self) -> int:
        return sum(getattr(self, name) for name in VIOLATIONS) + len(self.others)


DISK = ("HR-0561", "HR-0562", "HR-0565")  # what the disk did
VIOLATIONS = ("lost", "twice", "differing", "corrupt_loaded", "checkpoints_lost")


def simulate(seed: int, parts: Parts | None = None) -> Outcome:
    """Run one seed: at least STEPS steps and FAULTS_MIN faults that fired. Cost: some 80 ms."""
    return Life(seed, Parts() if parts is None else parts).run()


class Life:
    """A log, a state that follows it, and its disk; `run` lives it from the seed."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self.random = random.Random(seed)
        self.parts = parts
        self.outcome = Outcome(seed)
        self.files = parts.files(self.random)
        self.log = GrowingLog(self.random)
        self.story = self.log.story
        self.views = self._views()
        self.prints = {view.name: f"of {view.name}" for view in self.views}
        self.served: list[tuple[Asked, Answer]] = []
        self.acknowledged: tuple[int, Folder] | None = None
        self.state = self._fresh()

    def _views(self) -> list[FeatureView]:
        """One or two of the story's; sometimes a count of every event, which says which are lost or there twice."""
        views = self.random.sample(self.story.views, self.random.choice((1, 1, 2)))
        if self.random.random() < 0.4:
            views.append(
                FeatureView("census", entity="customer", source=self.story.main, features=[count().lifetime()])
            )
        return views

    def run(self) -> Outcome:
        """To the end of the steps, a last crash, and the last check."""
        outcome = self.outcome
        while outcome.steps < STEPS or sum(self.files.fired.values()) < FAULTS_MIN:
            if outcome.steps > 10 * STEPS:
                outcome.others.append("faults did not fire")
                break
            outcome.steps += 1
            try:
                self.step()
            except EndedError:
                self.restart()
            except StateError as error:
                self._strange(str(error))
                self.restart()
        self.files.disarm()
        self.crash()
        try:
            self.finish()
        except StateError as error:
            self._strange(str(error))
        outcome.faults = Counter({fault.name.lower(): n for fault, n in self.files.fired.items()})
        outcome.faults += Counter({f"rot_{rot.name.lower()}": n for rot, n in self.files.rotted.items()})
        outcome.ended = self.files.ended
        return outcome

    def step(self) -> None:
        draw = self.random.random()
        if self.random.random() < 0.04:
            self.files.arm(self.random.choice(_FAULTS))
        if draw < 0.34:
            self.outcome.events += self.log.append()
        elif draw < 0.64:
            self.follow()
        elif draw < 0.86:
            self.serve()
        elif draw < 0.96:
            self.checkpoint()
        elif draw < 0.985:
            self.files.rot(PLACE, self.parts.rots, self.parts.spared)
        else:
            self.crash()

    # --- the process ---

    def _fresh(self) -> FeatureState:
        return FeatureState(self._plans(), topics=self.story.topics.values())

    def _plans(self) -> list[ViewPlan]:
        return [ViewPlan.compile(view, self.story.labels) for view in self.views]

    def follow(self) -> None:
        """Some rows of one partition, its requests answered on the way; or all that there is."""
        if self.random.random() < 0.02:
            self.state.catch_up(self.log.log)
            return
        ends = {p: len(events) for p, events in self.log.held.items() if p.topic in self.state.topics}
        behind = sorted(p for p, end in ends.items() if self._next(p) < end)
        if not behind:
            return
        partition = self.random.choice(behind)
        first = self._next(partition)
        last = min(ends[partition], first + self.random.choice((1, 2, 5, 20)))
        for offset in range(first, last):
            event = self.log.held[partition][offset]
            if partition.topic == self.story.requests and event.verdict in REQUESTS and self.random.random() < 0.5:
                self._take(partition, offset)
                self._serve_request(event)
        self._take(partition, last)

    def _next(self, partition: Partition) -> int:
        feed = self.state.feeds.get(partition)
        return 0 if feed is None else feed.next

    def _take(self, partition: Partition, end: int) -> None:
        """Read the partition up to an offset: as rows, or as a batch of the log."""
        first = self._next(partition)
        if first >= end:
            return
        if self.random.random() < 0.15:
            self.state.ingest(partition, self.log.batch(partition, first, end))
            return
        for event in self.log.held[partition][first:end]:
            row, verdict = self.log.row(event), int(event.verdict)
            self.state.ingest_row(partition, event.offset, event.available_at, event.event_time, verdict, row)

    def _serve_request(self, event: Event) -> None:
        place = event.partition, event.offset
        for view in self.views:
            self._serve(view, event.event_time, self.log.row(event), place)

    def serve(self) -> None:
        """A request that is in no log, or a plain read of an entity that was seen."""
        view = self.random.choice(self.views)
        newest = max((feed.available_at for feed in self.state.feeds.values() if feed.next), default=None)
        if newest is None:
            return
        t = newest + self.random.choice((0, 0, 1, SECOND, -SECOND, -20 * SECOND, 90 * SECOND))
        like = self.log.held.get(Partition(self.story.requests, 1, 0))
        entities = list(self.state.views[view.name].keys)
        if like and self.random.random() < 0.4:
            self._serve(view, t, self.log.row(self.random.choice(like)), None)
        elif entities:
            self._serve(view, t, None, None, self.random.choice(entities))

    def _serve(
        self,
        view: FeatureView,
        t: int,
        request: tuple[Physical, ...] | None,
        place: tuple[Partition, int] | None,
        entity: Hashable = None,
    ) -> None:
        asked = Asked(frontier=_frontier(self.state), view=view.name, t=t, entity=entity, request=request, place=place)
        answer = self._ask(asked)
        if answer is None:
            self.outcome.refused_old += 1
            return
        self.outcome.served += 1
        self.served.append((asked, answer))

    def _ask(self, asked: Asked) -> Answer | None:
        """None where it is refused as too old."""
        try:
            if asked.request is None:
                return self.state.read(asked.view, asked.entity, asked.t)
            if asked.place is None:
                return self.state.hypothetical([asked.view], self.story.main)(asked.request, asked.t)[0]
            partition, offset = asked.place
            return self.state.asker([asked.view], self.story.main, partition)(offset, asked.request, asked.t)[0]
        except StateError as error:
            if error.code == "HR-0541":
                return None
            raise

    def checkpoint(self) -> None:
        self.files.stamp = _frontier(self.state)
        try:
            self.parts.write(self.state, PLACE, fingerprints=self.prints, files=self.files)
        except StateError as error:
            if error.code not in DISK:
                raise
            self.outcome.checkpoints_failed += 1
            return
        self.outcome.checkpoints += 1
        # A damaged one that is further may lie before it.
        self.acknowledged = max(self.files.numbered(PLACE), key=lambda one: one[0] % NUMBERS)

    # --- crashes ---

    def crash(self) -> None:
        """Between two steps."""
        if self.random.random() < 0.5:
            self.files.cut()
        self.restart()

    def restart(self) -> None:
        """From the disk and the log, until it holds; then everything that was served is asked again."""
        self.outcome.crashes += 1
        while True:
            try:
                self.state = self._restored()
                self._ask_again()
                return
            except EndedError:
                self.outcome.crashes += 1
            except StateError as error:
                if error.code in DISK:
                    continue  # the folder could not be listed; the next start may do better
                self._strange(str(error))
                return

    def _restored(self) -> FeatureState:
        """By the newest checkpoint that is whole, or from nothing."""
        files, outcome = self.files, self.outcome
        self.files.last = None
        failed = files.fired[Fault.READ]
        before = files.numbered(PLACE)
        self._check_acknowledged(before)
        state = self.parts.restore(
            self._plans(), PLACE, fingerprints=self.prints, topics=self.story.topics.values(), files=files
        )
        whole = [folder for _, folder in before if folder.whole]
        could_read = files.fired[Fault.READ] == failed
        outcome.restarts += 1
        if state is None:
            outcome.from_nothing += 1
            outcome.refused_corrupt += len(before) - len(whole)
            outcome.checkpoints_lost += bool(whole) and could_read
            return self._fresh()
        taken = files.last
        places = [folder for _, folder in before]
        if taken is None or taken not in places:
            self._strange("a state came from no checkpoint")
            return state
        newer = places[places.index(taken) + 1 :]
        outcome.from_older += bool(newer)
        outcome.from_newest += not newer
        outcome.refused_corrupt += sum(not folder.whole for folder in newer)
        outcome.corrupt_loaded += not taken.whole
        outcome.checkpoints_lost += any(folder.whole for folder in newer) and could_read
        if taken.whole and _frontier(state) != taken.stamp:
            self._strange("a checkpoint says another frontier than its state had")
        return state

    def _check_acknowledged(self, there: Sequence[tuple[int, Folder]]) -> None:
        """The last one whose write returned is there, as far as it did not rot; or a later one, whose write was already
        removing it when it ended."""
        if self.acknowledged is None:
            return
        number, last = self.acknowledged
        kept = last.rotten or (number, last) in there and last.whole
        if not kept and not any(f.whole for later, f in there if later % NUMBERS > number % NUMBERS):
            self.outcome.checkpoints_lost += 1
            self.acknowledged = None

    def _ask_again(self) -> None:
        """On the way to where the crash was, at every cut that the restarted state comes by."""
        for asked, answer in self.served:
            if any(self._next(p) > asked.frontier.get(p, 0) for p in self.state.feeds):
                continue  # the checkpoint lies behind it
            if self.random.random() < 0.003:
                raise EndedError("between")
            self._go_to(asked.frontier)
            self.outcome.compared += self._compare(asked, answer, "after a restart")
        self._count()

    def _go_to(self, frontier: Frontier) -> None:
        for partition in self.random.sample(sorted(frontier), len(frontier)):
            while (first := self._next(partition)) < frontier[partition]:
                size = self.random.choice((1, 3, frontier[partition]))
                self._take(partition, min(frontier[partition], first + size))

    def _compare(self, asked: Asked, answer: Answer, when: str) -> bool:
        """Whether there was a value to compare: a refusal is none; but at the newest instant nothing is refused."""
        found = self._ask(asked)
        if found is None:
            self.outcome.refused_old += 1
            if asked.t >= max(self.log.held[p][n - 1].available_at for p, n in asked.frontier.items() if n):
                self._strange(f"{asked} was refused {when}")
            return False
        if repr(found) != repr(answer):
            self.outcome.differing += 1
            self._tell(f"{asked}: {answer} before, {found} {when}")
        return True

    def _count(self) -> None:
        """Every event below the frontier, by the census."""
        if "census" not in self.state.views:
            return
        wanted: Counter[Physical] = Counter()
        for partition, events in self.log.held.items():
            if partition.topic == self.story.requests:
                some = events[: self._next(partition)]
                wanted.update(event.values.get("customer") for event in some if event.verdict in TAKEN)
        for customer in wanted.keys() - {None}:
            ((seen,), _) = self.state.read("census", customer, 2**62)
            assert isinstance(seen, int)
            self.outcome.lost += max(0, wanted[customer] - seen)
            self.outcome.twice += max(0, seen - wanted[customer])

    # --- the end ---

    def finish(self) -> None:
        """The state at the log's end, beside one that never stopped, and the oracle."""
        self.state.catch_up(self.log.log)
        self._count()
        untouched, frontier = self._fresh(), _frontier(self.state)
        for partition, end in frontier.items():
            if end:
                untouched.ingest(partition, self.log.batch(partition, 0, end))
        newest = max((event.available_at for events in self.log.held.values() for event in events), default=0)
        for view in self.views:
            for whose in untouched.views[view.name].keys:
                t = newest + self.random.choice((0, 1, SECOND))
                asked = Asked(frontier=frontier, view=view.name, t=t, entity=whose, request=None, place=None)
                self.outcome.compared_at_end += self._compare(asked, untouched.read(view.name, whose, t), "in the end")
            self._ask_oracle(view, newest)

    def _ask_oracle(self, view: FeatureView, t: int) -> None:
        keys = list(self.state.views[view.name].keys)
        if not keys:
            return
        whose = self.random.choice(keys)
        question = Question(
            view=view.name,
            kind=Kind.SERVED,
            position=self.outcome.events,
            t=t,
            entity=whose if isinstance(whose, tuple) else (whose,),  # type: ignore[arg-type]  # a field's value
            request=None,
            cut=Cut.of({partition: len(events) for partition, events in self.log.held.items()}),
        )
        events = tuple(event for events in self.log.held.values() for event in events)
        told = Story(
            seed=self.outcome.seed,
            topics=self.story.topics,
            labels=self.story.labels,
            views=tuple(self.views),
            rows={},
            events=events,
        )
        wanted = expected(told, question, Tally(), Owners())
        values, reasons = self.state.read(view.name, whose, t)
        self.outcome.compared_at_end += 1
        if (tuple(canonical(value) for value in values), reasons) != wanted:
            self.outcome.differing += 1
            self._tell(f"{view.name} of {whose!r} at {t}: oracle {wanted}, seen {values}")

    def _tell(self, what: str) -> None:
        if len(self.outcome.told) < 3:
            self.outcome.told.append(f"step {self.outcome.steps}: {what}")

    def _strange(self, what: str) -> None:
        self.outcome.others.append(f"step {self.outcome.steps}: {what}")


def _frontier(state: FeatureState) -> dict[Partition, int]:
    return {partition: feed.next for partition, feed in state.feeds.items()}
