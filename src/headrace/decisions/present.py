"""The present cut of each view that a decision reads, and its text as a record keeps it. Pure.

The one idea: between two commits only the end of the request's own partition moves, so the text around it is kept: 5 us
less a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.core.points import Cut, Partition
from headrace.decisions.plan import ViewVersion

_NONE: Mapping[int, tuple[Cut, int]] = {}


class PresentCuts:
    """ends: where each partition that is followed ends; whoever made it keeps it true, and says `moved`."""

    def __init__(self, views: Sequence[ViewVersion], ends: Mapping[Partition, int]) -> None:
        self._ends = ends
        self._prefixes = tuple(
            tuple((p, f'["{p.topic}",{p.incarnation},{p.index},') for p in ends if p.topic in view.topics)
            for view in views
        )
        self._around: dict[Partition, list[tuple[str, str | None]]] = {}

    def cuts(self) -> list[Cut]:
        """Of each view, in order."""
        return [Cut.of({p: self._ends[p] for p, _ in prefixes}) for prefixes in self._prefixes]

    def moved(self, partition: Partition) -> None:
        """The end of a partition is another: the points of requests in other partitions name it."""
        self._around = {own: texts for own, texts in self._around.items() if own == partition}

    def text(
        self,
        own: Partition,
        offset: int,
        staleness: int,
        absent: Mapping[int, str],
        held: Mapping[int, tuple[Cut, int]] = _NONE,
    ) -> str:
        """`record.points_text` of the present cuts, in the own partition up to the request. absent: by the view's
        place, why it gave no answer. held: by the view's place, the cut and the staleness of what stands elsewhere."""
        texts = self._around.get(own)
        if texts is None:
            texts = self._around[own] = [self._cut_around(own, prefixes) for prefixes in self._prefixes]
        parts = []
        for place, (before, after) in enumerate(texts):
            cut, age = before if after is None else f"{before}{offset}{after}", staleness
            if place in held:
                elsewhere, age = held[place]
                cut = ",".join([f'["{p.topic}",{p.incarnation},{p.index},{at}]' for p, at in elsewhere])
            why = f'"{absent[place]}"' if place in absent else "null"
            parts.append(f"[[{cut}],{age},{why}]")
        return f"[{','.join(parts)}]"

    def _cut_around(self, own: Partition, prefixes: Sequence[tuple[Partition, str]]) -> tuple[str, str | None]:
        """The text of a view's cut before and after the own partition's offset; whole, and None, where the view does
        not read it."""
        texts = [prefix if partition == own else f"{prefix}{self._ends[partition]}]" for partition, prefix in prefixes]
        place = next((place for place, (partition, _) in enumerate(prefixes) if partition == own), None)
        if place is None:
            return ",".join(texts), None
        return ",".join(texts[: place + 1]), "".join(["]", *(f",{text}" for text in texts[place + 1 :])])
