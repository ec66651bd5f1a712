"""One function whose every mutant is caught, and one that no test calls. Pure."""

from __future__ import annotations


def bounded(value: int, low: int, high: int) -> int:
    """The value, or the bound that it is beyond. Raises: ValueError where there is no room between the bounds."""
    if low > high:
        raise ValueError(f"{low} is above {high}")
    if value < low:  # mutation: at the bound both ways give the bound
        return low
    return min(value, high)


def unchecked(value: int) -> int:
    return value + 1
