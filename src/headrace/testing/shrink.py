"""A difference made small enough to read: one feature, as few events as still show it. Pure, given its story.

The one idea: whatever is left out, offsets are closed up and cuts moved with them, so the smaller story is a log again;
it is kept if the oracle and the other still disagree.
"""

from __future__ import annotations

import copy
import random
from dataclasses import replace

from headrace.core.points import Cut, Partition
from headrace.testing.agreement import Difference, compare, online, place, replayed
from headrace.testing.generate import Story
from headrace.testing.oracles import Event, Owners
from headrace.testing.questions import Tally, expected, view_of


def shrink(story: Story, difference: Difference, *, tries: int = 3) -> tuple[Story, Difference]:
    """The same disagreement over one feature and as few events as can be found, in a story of their own.

    tries: how often a smaller story is asked, as batches and restarts are drawn anew.
    """
    view = copy.copy(view_of(story, difference.question))
    object.__setattr__(view, "features", (difference.feature,))
    best = replace(story, views=(view,)), difference
    held = _again(*best, tries)
    if held is None:
        return best
    best = best[0], held
    size = max(len(story.events) // 2, 1)
    while size:
        place = 0
        while place < len(best[0].events):
            smaller = _without(*best, range(place, place + size))
            held = None if smaller is None else _again(*smaller, tries)
            if smaller is None or held is None:
                place += size
            else:
                best = smaller[0], held
        size //= 2
    return best


def _without(story: Story, difference: Difference, places: range) -> tuple[Story, Difference] | None:
    """Without some events, the others' offsets closed up; None where the request is among them."""
    question = difference.question
    if any(story.events[i] is question.request for i in places if i < len(story.events)):
        return None
    moved: dict[Event, Event] = {}
    counts: dict[Partition, int] = {}
    kept = [e for i, e in enumerate(story.events) if i not in places]
    for event in kept:
        moved[event] = replace(event, offset=counts.get(event.partition, 0))
        counts[event.partition] = counts.get(event.partition, 0) + 1
    cut = question.cut
    if cut is not None:
        cut = Cut(tuple((p, sum(1 for e in kept if e.partition == p and e.offset < end)) for p, end in cut))
    position = sum(1 for i in range(question.position) if i not in places)
    request = None if question.request is None else moved.get(question.request, question.request)
    asked = replace(question, position=position, request=request, cut=cut)
    return replace(story, events=tuple(moved[e] for e in kept)), replace(difference, question=asked)


def _again(story: Story, difference: Difference, tries: int) -> Difference | None:
    """The difference, if the one question still shows it."""
    question = difference.question
    wanted = expected(story, question, Tally(), Owners())
    for seed in range(tries):
        answers = (
            replayed(story, [question])
            if difference.who == "replay"
            else online(story, [question], random.Random(seed))
        )
        for _, answer in answers:
            if answer is not None:
                for found in compare(story, difference.who, question, wanted, answer):
                    return found
    return None


def told(story: Story, difference: Difference) -> str:
    """A difference and its events, to be read and typed off."""
    question, t = difference.question, difference.question.t
    lines = [str(difference), f"  entity {view_of(story, question).entity}, cut {question.cut}"]
    lines += [f"  {name}: {topic.max_late=!s} {topic.partitions=}" for name, topic in story.topics.items()]
    for event in [*story.events, *([question.request] if question.request is not None else [])]:
        values = {name: value for name, value in event.values.items() if value is not None}
        mark = "*" if event is question.request else " "
        lines.append(
            f" {mark}{place(event)} t{event.event_time - t:+} available t{event.available_at - t:+} "
            f"{event.verdict.name} {values}"
        )
    return "\n".join(lines)
