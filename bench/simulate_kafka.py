"""Seeds of owners, producers, clients and re-keyers over a model of Kafka that fails on purpose, and guards broken on
purpose.

`crash_points` counts the pairs (call at which a process ended, what it was doing) that were reached,
`crash_point_least` how often the rarest of them was. `guards_caught`: of `guards`, each taken out of the product for up
to GUARD_SEEDS seeds, those without which the judge finds a violation.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from headrace.clients.kafka.port import Acknowledged, Outgoing, Place, Record
from headrace.core.errors import HeadraceError, LogError
from headrace.core.points import Cut
from headrace.decisions import claims, owned, owners, standing
from headrace.decisions.port import Features
from headrace.log import kafka, plan
from headrace.log.kafka_exclusive import KafkaExclusive
from headrace.log.kafka_following import Following
from headrace.log.port import CARRIED, Append, Appended, Exclusive, Log, TopicState, Verdict
from headrace.stream import plan as stream_plan
from headrace.stream.proving import Proving
from headrace.stream.run import ReKeyer
from headrace.testing.kafka_simulation import Outcome, simulate

SEEDS, SEEDS_QUICK = 10_000, 300
FIRST_SEED = 20_260_101
GUARD_SEEDS = 600
COUNTED = (
    "events", "acknowledged", "requests", "answers", "valid", "void", "zombies", "claims", "members_expired", "derived",
    "transactions", "aborts", "re-keyers", "re-keyers fenced", "cuts_told",
)  # fmt: skip

Undo = Callable[[], None]


def run(*, quick: bool, peers: bool) -> dict[str, dict[str, float]]:
    """The figures of `simulate-kafka`; a seed that found something is in `violation_seed`, to be run alone."""
    count = SEEDS_QUICK if quick else SEEDS
    total, fired, crashed, errors = Counter[str](), Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    steps, violations, strange, began = 0, 0, None, time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        for outcome in pool.imap_unordered(simulate, range(FIRST_SEED, FIRST_SEED + count), chunksize=10):
            steps += outcome.steps
            total += outcome.counted
            fired += outcome.faults
            crashed += outcome.crashed
            errors += outcome.errors
            violations += len(outcome.violations)
            if outcome.violations:
                strange = outcome.seed
                print(f"seed {outcome.seed}: {outcome.violations[:3]}", flush=True)
        lasted = time.perf_counter() - began
        caught = dict(pool.imap_unordered(catch, GUARDS))
    for name, seeds in sorted(caught.items()):
        print(f"guard {name}: {'not caught' if seeds is None else f'caught by seed {seeds}'}", flush=True)
    figures: dict[str, float] = {
        "seeds": count,
        "steps": steps,
        "steps_per_s": steps / lasted,
        "faults": sum(fired.values()),
        **{f"faults_{name}": fired[name] for name in sorted(fired)},
        "violations": violations,
        **{name.replace(" ", "_").replace("-", ""): total[name] for name in COUNTED},
        "crash_points": len(crashed),
        "crash_point_least": min(crashed.values(), default=0),
        "guards": len(GUARDS),
        "guards_caught": sum(seeds is not None for seeds in caught.values()),
    }
    if strange is not None:
        figures["violation_seed"] = strange
    return {"figures": figures, "peers": {}}


def catch(name: str) -> tuple[str, int | None]:
    """How many seeds it takes to notice that a guard is gone; None where they do not."""
    with broken(name):
        for place, seed in enumerate(range(FIRST_SEED, FIRST_SEED + GUARD_SEEDS), 1):
            if _violated(seed):
                return name, place
    return name, None


def _violated(seed: int) -> bool:
    """An error that no process handles is a violation, too."""
    try:
        outcome: Outcome = simulate(seed)
    except (AssertionError, ValueError, KeyError, IndexError, TypeError):
        return True
    return bool(outcome.violations)


# --- guards ---


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Without one guard of the product, in this process."""
    undo = [_replace(place, attribute, made) for place, attribute, made in GUARDS[name]()]
    try:
        yield
    finally:
        for each in reversed(undo):
            each()


def _replace(place: object, name: str, made: object) -> Undo:
    before = getattr(place, name)
    setattr(place, name, made)
    return lambda: setattr(place, name, before)


Replaced = Sequence[tuple[object, str, object]]


def older_claims_count() -> Replaced:
    """The fold takes records of whoever claimed before."""
    take = claims.ClaimFold.take

    def lenient(self: claims.ClaimFold, offset: int, row: Sequence[claims.Physical]) -> claims.Standing:
        fields = list(row)
        fields[claims.EPOCH] = self.epoch
        return take(self, offset, fields)

    def everything(self: claims.ClaimFold, epochs: Sequence[object]) -> object:
        return np.ones(len(epochs), np.bool_)

    return [(claims.ClaimFold, "take", lenient), (claims.ClaimFold, "_of_this_epoch", everything)]


def void_records_are_linked() -> Replaced:
    """The next record names the last one there is, whether it counts or not."""
    take = claims.ClaimFold.take

    def careless(self: claims.ClaimFold, offset: int, row: Sequence[claims.Physical]) -> claims.Standing:
        found = take(self, offset, row)
        if found is claims.Standing.VOID:
            self.head = str(row[claims.CHAIN])
        return found

    def all_rows(self: claims.ClaimFold, batch: claims.pa.RecordBatch) -> object:
        found = in_batches(self, batch)
        links = [link for link in batch.column("chain").to_pylist() if link is not None]
        self.head = str(links[-1]) if links else self.head
        return found

    in_batches = claims.ClaimFold.take_batch
    return [(claims.ClaimFold, "take", careless), (claims.ClaimFold, "take_batch", all_rows)]


def answers_before_reading_back() -> Replaced:
    """What was appended is answered, whether it counts or not (K1.7)."""
    settle = owners.OwnedDecider._settle

    def hasty(self: owners.OwnedDecider, index: int, of: Sequence[owned.Computed], done: Appended) -> None:
        settle(self, index, of, done)
        for each in of:
            each.asked.answer = each.made

    return [(owners.OwnedDecider, "_settle", hasty)]


def unknown_is_not_claimed_again() -> Replaced:
    """An append whose outcome is not known is tried again under the same claim (K1.7)."""

    def patient(
        self: owners.OwnedDecider, error: LogError, appends: Sequence[Append], asked: Sequence[owned.Asked]
    ) -> None:
        for one in asked:
            one.error = error

    return [(owners.OwnedDecider, "_failed", patient)]


def unknown_is_a_success() -> Replaced:
    """An append of events whose outcome is not known is acknowledged."""
    append = kafka.KafkaLog.append

    def hopeful(self: kafka.KafkaLog, appends: Sequence[Append], **how: object) -> tuple[Appended, ...]:
        try:
            return append(self, appends, **how)  # type: ignore[arg-type]  # as it was called
        except HeadraceError as error:
            if error.code != "HR-0311" or any(each.partition.topic != "events" for each in appends):
                raise
            none = np.zeros(0, np.int64)
            return tuple(
                Appended(
                    partition=each.partition,
                    offset=0,
                    verdicts=none.astype(np.uint8),
                    event_times=none,
                    available_at=none,
                )
                for each in appends
            )

    return [(kafka.KafkaLog, "append", hopeful)]


def duplicates_are_decided() -> Replaced:
    """A request whose id lies below it is decided all the same (K1.4)."""
    return [(owners, "NOT_THE_EVENT", frozenset())]


def duplicates_count() -> Replaced:
    """The log takes a second event with a known id."""
    return [(plan.Judge, "_by_id", lambda self, *places, **named: None)]


def views_are_not_read_to_the_end() -> Replaced:
    """An owner answers from what it read of the views when it began, whatever was recorded before it (K1.2, K1.8)."""
    look = standing.StandingViews.look

    def blind(self: standing.StandingViews) -> object:
        found = look(self)
        if not isinstance(self._features, _Blind):
            self._features = _Blind(self._features)  # type: ignore[assignment]  # the rest is theirs
        return found

    return [(standing.StandingViews, "look", blind), (owned.Owned, "views_behind", lambda self, ends, views: ())]


class _Blind:
    """Features that see no new events."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def catch_up(self, log: Log, *, upto: Cut | None = None) -> int:
        return 0 if upto is None else self._features.catch_up(_WithoutEvents(log), upto=upto)  # type: ignore[arg-type]  # a log, as far as it is asked

    def __getattr__(self, name: str) -> object:
        return getattr(self._features, name)


class _WithoutEvents:
    """A log in which they are not found."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def topics(self, *, fresh: bool = True) -> list[TopicState]:
        return [state for state in self._log.topics(fresh=fresh) if state.topic.name != "events"]

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)


def own_records_are_taken_behind_a_gap() -> Replaced:
    """What was acknowledged is taken for read, whatever lies before it (K1.6, docs/adr/0025)."""

    def hasty(self: Following, records: Sequence[Outgoing], found: Acknowledged) -> None:
        by: dict[Place, list[Record]] = {}
        for sent, offset, stamp in zip(records, found.offsets, found.stamps or (), strict=found.stamps is not None):
            by.setdefault(sent.place, []).append(Record(offset, stamp, sent.key, sent.value, sent.headers))
        with self.lock:
            for place, own in by.items():
                feed = self._by_place.get(place)
                if feed is not None and feed.next <= own[0].offset:
                    feed.take(own, own[-1].offset + 1)

    return [(Following, "take_own", hasty)]


def lost_claims_are_kept() -> Replaced:
    """Whoever claimed once decides for ever, and calls its own records valid."""
    standings = owners.read_records

    def sure(*given: object) -> list[claims.Standing]:
        found = standings(*given)  # type: ignore[arg-type]  # as it was called
        return [claims.Standing.VALID if one is claims.Standing.VOID else one for one in found]

    return [(owned.Owned, "lost", False), (owners, "read_records", sure)]


# --- guards of re-keyers ---


def offsets_are_committed_apart() -> Replaced:
    """What was made of rows is one transaction, how far they were read another (K2.2)."""
    append = KafkaExclusive.append

    def apart(self: KafkaExclusive, appends: Sequence[Append], *, cut: Cut) -> None:
        append(self, appends, cut=Cut())
        append(self, (), cut=cut)

    return [(KafkaExclusive, "append", apart)]


class _AskedBefore(Exclusive):
    """What its name had committed was asked before older writers were fenced."""

    def __init__(self, made: Exclusive, before: Cut) -> None:
        self._made = made
        self._before: Cut | None = before

    def cut(self) -> Cut:
        found, self._before = self._before, None
        return self._made.cut() if found is None else found

    def append(self, appends: Sequence[Append], *, cut: Cut) -> None:
        self._made.append(appends, cut=cut)

    def close(self) -> None:
        self._made.close()


def committed_is_asked_before_the_fence() -> Replaced:
    """K2.1."""
    exclusive = kafka.KafkaLog.exclusive

    def early(self: kafka.KafkaLog, name: str) -> Exclusive:
        before = self.group(name)
        return _AskedBefore(exclusive(self, name), before)

    return [(kafka.KafkaLog, "exclusive", early)]


def buffers_are_kept_over_an_abort() -> Replaced:
    """What was read behind a transaction that was given up is written, and that transaction's rows are not (K2.3)."""
    seek = ReKeyer._seek

    def keep(self: ReKeyer) -> None:
        reading, left = self._reading, self._left
        seek(self)
        self._reading, self._left = reading, left

    return [(ReKeyer, "_seek", keep)]


def successors_have_another_id() -> Replaced:
    """Nobody is fenced, nobody ends what the one before left open (K2.1)."""
    numbers = itertools.count()

    def renamed(self: kafka.KafkaLog, name: str) -> Exclusive:
        return KafkaExclusive(
            self._client.sender(transactional_id=f"{name}.{next(numbers)}"),
            self._following,
            name=name,
            group=self._group_name(name),
            committed=self.group,
            offsets=self._group_offsets,
        )

    return [(kafka.KafkaLog, "exclusive", renamed)]


def unknown_ends_are_tried_again() -> Replaced:
    """A transaction whose end is not known is done once more, by the same name, which asks nobody how it ended."""
    append = KafkaExclusive.append

    def again(self: KafkaExclusive, appends: Sequence[Append], *, cut: Cut) -> None:
        try:
            append(self, appends, cut=cut)
        except LogError as error:
            if error.code != "HR-0311":
                raise
            self._sender = self._following.client.sender(transactional_id=self._group)
            append(self, appends, cut=cut)

    return [(KafkaExclusive, "append", again)]


def duplicates_are_carried() -> Replaced:
    """A row that the source calls a duplicate is carried over (SEMANTICS 5.1)."""
    return [(stream_plan, "CARRIED", (*CARRIED, Verdict.DUPLICATE))]


def proofs_take_stable_ends() -> Replaced:
    """Whoever has read a derived partition to its stable end is told that all is there which was committed before that
    end was asked for, though another re-keyer's open transaction may hold the end below it (K2.4)."""

    def hasty(self: Proving) -> dict[int, int]:
        (state,) = (state for state in self._log.topics() if state.topic.name == self._derived)
        return {held.partition.index: held.end for held in state.partitions}

    return [(Proving, "_ends", hasty)]


GUARDS: Mapping[str, Callable[[], Replaced]] = {
    made.__name__: made
    for made in (
        older_claims_count,
        void_records_are_linked,
        answers_before_reading_back,
        unknown_is_not_claimed_again,
        unknown_is_a_success,
        duplicates_are_decided,
        duplicates_count,
        views_are_not_read_to_the_end,
        own_records_are_taken_behind_a_gap,
        lost_claims_are_kept,
        offsets_are_committed_apart,
        committed_is_asked_before_the_fence,
        buffers_are_kept_over_an_abort,
        successors_have_another_id,
        unknown_ends_are_tried_again,
        duplicates_are_carried,
        proofs_take_stable_ends,
    )
}
