"""What an audit finds: a suspicion, with its evidence. Pure (SEMANTICS 4.5)."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

Evidence = Mapping[str, int | float | str]


class Check(enum.Enum):
    """What was measured."""

    FILLED_AT_APPEND = "filled at append"
    UNDECLARED_LATE = "undeclared late column"
    LATER_THAN_DECLARED = "later than declared"
    OUTSIDE_WINDOW = "outside the label's window"
    UNSEEN_BY_SERVING = "unseen by serving"
    SINGLE_FEATURE = "single feature"
    DISTRIBUTION = "live against training"
    NO_CHANCE = "no chance of a label"
    SELECTED = "training rows selected by outcome"


class Severity(enum.Enum):
    NOTE = "note"
    SUSPICION = "suspicion"
    STRONG = "strong suspicion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One suspicion. subject: the definition it is about. says: what was seen. evidence: the figures behind it,
    instants and durations as texts. hint: what to look at."""

    check: Check
    severity: Severity
    subject: str
    says: str
    evidence: Evidence = field(default_factory=dict)
    hint: str = ""


def percent(share: float) -> str:
    """A share in words, three digits of it."""
    return f"{100 * share:.3g} %"


def nearest_rank(share: float, count: int) -> int:
    """The index of a share's quantile in `count` ordered values."""
    return min(max(math.ceil(share * count) - 1, 0), count - 1)
