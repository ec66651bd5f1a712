"""Availability as a type: how long after its row's event time a value can be known, and why. Pure.

Every expression carries one. Combining values takes the later; a window must wait that long (SEMANTICS 4.4).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from headrace.core.times import ZERO, Duration


class Lateness(enum.Enum):
    """Why a value comes later than its row."""

    NONE = "none"
    COLUMN = "late column"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Availability:
    """after: known this long after the row's event time. why: what makes it late. path: the definitions that carry it,
    outermost last, as in ("chargebacks", "charged_back", "merchant_risk.charged_back_rate_30d")."""

    after: Duration = ZERO
    why: Lateness = Lateness.NONE
    path: tuple[str, ...] = ()

    @property
    def late(self) -> bool:
        return self.why is not Lateness.NONE

    def then(self, step: str) -> Availability:
        """The same, seen through one more definition."""
        return Availability(self.after, self.why, (*self.path, step)) if self.late else self


NOW = Availability()


def latest(*parts: Availability) -> Availability:
    """The availability of a value made from all of them: the latest; a label wins a tie, as its fix is the stricter."""
    best = NOW
    for part in parts:
        if (part.after.micros, part.why is Lateness.LABEL, part.late) > (
            best.after.micros,
            best.why is Lateness.LABEL,
            best.late,
        ):
            best = part
    return best
