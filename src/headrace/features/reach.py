"""How far back a view looks. Pure."""

from __future__ import annotations

from headrace.core.window import Aligned, Lifetime, Sliding, Unit, Window
from headrace.features.plan import ViewPlan

_DAY = 86_400_000_000
# The longest a calendar unit lasts, with the hour that a change of the clock may add.
_LONGEST = {
    Unit.HOUR: 2 * _DAY // 24,
    Unit.DAY: _DAY + _DAY // 12,
    Unit.WEEK: 7 * _DAY + _DAY // 12,
    Unit.MONTH: 31 * _DAY + _DAY // 12,
    Unit.YEAR: 366 * _DAY + _DAY // 12,
}


def reach(plan: ViewPlan) -> int | None:
    """How far behind t the oldest event may lie that any of the view's windows reads; None: as far as there are
    events."""
    far = [_window_reach(feature.window) for feature in plan.view.features]
    found = [one for one in far if one is not None]
    return max(found) if len(found) == len(far) else None


def _window_reach(window: Window) -> int | None:
    match window:
        case Lifetime():
            return None
        case Sliding():
            return window.width.micros + window.delay.micros
        case Aligned():
            unit = window.unit
            return 2 * (_LONGEST[unit] if isinstance(unit, Unit) else unit.micros)
