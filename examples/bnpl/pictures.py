"""Pictures for a page: small charts as inline SVG, from numbers. Pure.

The one idea: a picture needs nothing but itself. Colours are classes that the page's style names, so one picture is
right in the light and in the dark; text from outside is escaped; where there is nothing to draw it says so. All are of
one width, in which text of 12 units is readable on a phone.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 24, 40
LETTER = 6.6  # what a letter of 12 units is wide, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a colour stands for. style: the class that the page's style gives a colour."""

    name: str
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """svg: the drawing. keys: what its colours stand for, for a legend beside it; note: what one has to know to read
    it."""

    title: str
    svg: str
    keys: tuple[Key, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What lies between low and high, both included. log: by powers of ten, both above 0."""

    label: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1; what is outside lies at the edge."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(max(each, 1e-300)) for each in (value, low, high))
        return 0.5 if high == low else min(1.0, max(0.0, (value - low) / (high - low)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """points: (x, y), in the order in which they are joined."""

    key: Key
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A value with what it may as well be."""

    x: float
    y: float
    low: float
    high: float
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A line across the picture at x."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """counts: one a key, stacked upwards."""

    label: str
    counts: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Heights of bins, one fewer than their edges."""

    key: Key
    heights: Sequence[float]
    filled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """The plotting area, and how values become places in it."""

    x: Axis
    y: Axis
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            round(LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM), 1),
        )


def stacked(title: str, bars: Sequence[Bar], keys: Sequence[Key], *, x_label: str, y_label: str) -> Picture:
    """Bars of counts, one above the other. An empty list is said to be one."""
    most = max((sum(bar.counts) for bar in bars), default=0)
    if most == 0:
        return empty(title, "nothing was counted")
    every = max(1, math.ceil(len(bars) * (max(len(bar.label) for bar in bars) + 2) * LETTER / (WIDTH - LEFT - RIGHT)))
    ticks = tuple(Tick(at=i + 0.5, text=bar.label) for i, bar in enumerate(bars) if i % every == 0)
    frame = _Frame(x=Axis(label=x_label, low=0, high=len(bars), ticks=ticks), y=linear(y_label, 0, most))
    for index, bar in enumerate(bars):
        below = 0
        said = ", ".join(f"{key.name} {count:,}" for key, count in zip(keys, bar.counts, strict=True))
        pieces = []
        for key, count in zip(keys, bar.counts, strict=True):
            if count:
                left, top = frame.at(index + 0.1, below + count)
                right, bottom = frame.at(index + 0.9, below)
                pieces.append(_rectangle(left, top, right - left, bottom - top, key.style))
                below += count
        frame.parts.append(f"<g><title>{_escape(bar.label)}: {_escape(said)}</title>{''.join(pieces)}</g>")
    return _picture(title, frame, keys)


def histogram(
    title: str,
    edges: Sequence[float],
    groups: Sequence[Steps],
    *,
    x: Axis,
    y_label: str,
    percents: bool = False,
    marks: Sequence[Mark] = (),
) -> Picture:
    """Heights over bins, the first group behind the others. edges: rising, one more than there are heights. percents:
    heights are shares."""
    most = max((height for group in groups for height in group.heights), default=0.0)
    if most <= 0:
        return empty(title, "nothing was counted")
    room = 1.2 if marks else 1.0  # for their texts, above what is drawn
    frame = _Frame(x=x, y=(_percents if percents else linear)(y_label, 0.0, room * most))
    for group in groups:
        corners: list[tuple[float, float]] = [frame.at(edges[0], 0)]
        for low, high, height in zip(edges, edges[1:], group.heights, strict=False):
            corners += [frame.at(low, height), frame.at(high, height)]
        corners.append(frame.at(edges[-1], 0))
        style = f"area {group.key.style}" if group.filled else f"line {group.key.style}"
        frame.parts.append(_path(corners, style, group.key.name))
    _marks(frame, marks)
    return _picture(title, frame, [group.key for group in groups])


def lines(title: str, given: Sequence[Line], *, x: Axis, y: Axis, diagonal: bool = False) -> Picture:
    """Curves. diagonal: what knowing nothing would give, dotted."""
    drawn = [line for line in given if line.points]
    if not drawn:
        return empty(title, "there is nothing to compare yet")
    frame = _Frame(x=x, y=y)
    if diagonal:
        frame.parts.append(_path([frame.at(x.low, y.low), frame.at(x.high, y.high)], "chance", "knowing nothing"))
    for line in drawn:
        corners = [frame.at(*point) for point in line.points]
        if len(corners) == 1:
            frame.parts.append(_circle(*corners[0], line.key.style, line.key.name))
            continue
        style = f"line {line.key.style}{' dashed' if line.dashed else ''}"
        frame.parts.append(_path(thinned(corners), style, line.key.name))
    return _picture(title, frame, [line.key for line in drawn])


def dots(title: str, groups: Sequence[tuple[Key, Sequence[Dot]]], *, x: Axis, y: Axis) -> Picture:
    """Points with intervals, joined, beside the diagonal on which they would best lie."""
    drawn = [(key, found) for key, found in groups if found]
    if not drawn:
        return empty(title, "too few have matured")
    frame = _Frame(x=x, y=y)
    frame.parts.append(_path([frame.at(x.low, y.low), frame.at(x.high, y.high)], "chance", "as predicted"))
    for key, found in drawn:
        if len(found) > 1:
            frame.parts.append(_path([frame.at(dot.x, dot.y) for dot in found], f"thin {key.style}", key.name))
        for dot in found:
            (place, low), (_, high) = frame.at(dot.x, dot.low), frame.at(dot.x, dot.high)
            frame.parts.append(f'<path class="thin {_escape(key.style)}" d="M{place:g} {low:g}V{high:g}"/>')
            frame.parts.append(_circle(*frame.at(dot.x, dot.y), key.style, dot.said))
    return _picture(title, frame, [key for key, _ in drawn])


def empty(title: str, why: str) -> Picture:
    """The place of a picture that there is nothing for, which says so."""
    text = f'<text class="none" x="{WIDTH / 2:g}" y="{HEIGHT / 2:g}" text-anchor="middle">{_escape(why)}</text>'
    return Picture(title=title, svg=_svg(title, [text]))


# --- axes ---


def linear(label: str, low: float, high: float, *, shown: Callable[[float], str] | None = None) -> Axis:
    """Ticks at round values, the last at or above `high`."""
    step = _round_step((high - low) / 4 if high > low else 1.0)
    top = low + step * math.ceil((high - low) / step - 1e-9) if high > low else low + step
    said = shown or (lambda value: number(value, step))
    ticks = tuple(
        Tick(at=low + i * step, text=said(low + i * step)) for i in range(math.floor((top - low) / step + 1.5))
    )
    return Axis(label=label, low=low, high=top, ticks=ticks)


def shares(label: str) -> Axis:
    """From 0 to 1, in percent."""
    return Axis(label=label, low=0.0, high=1.0, ticks=tuple(Tick(at=i / 4, text=f"{25 * i}%") for i in range(5)))


def powers(label: str, low: float, high: float, *, shown: Callable[[float], str]) -> Axis:
    """By powers of ten, from that at or below `low` to that at or above `high`."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    ticks = tuple(Tick(at=10.0**i, text=shown(10.0**i)) for i in range(first, last + 1))
    return Axis(label=label, low=10.0**first, high=10.0**last, ticks=ticks, log=True)


def number(value: float, step: float) -> str:
    """With separators, and as many places as the step needs."""
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    return f"{value:,.{places}f}"


def percent(value: float) -> str:
    """0.1%, 2.5%, 40%: no more places than it needs."""
    return f"{100 * value:.10g}%"


def _percents(label: str, low: float, high: float) -> Axis:
    return linear(label, low, high, shown=lambda value: percent(round(value, 6)))


def _round_step(wanted: float) -> float:
    """1, 2 or 5 times a power of ten, at or above what is wanted."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return power * next(each for each in (1, 2, 5, 10) if each * power >= wanted * (1 - 1e-9))


# --- drawing ---


def thinned(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without corners that lie where the one before is, to half a unit: the same line, of thousands fewer points."""
    kept = [corners[0]]
    for place, corner in enumerate(corners[1:], 1):
        far = abs(corner[0] - kept[-1][0]) + abs(corner[1] - kept[-1][1])
        if far >= 0.5 or place == len(corners) - 1:
            kept.append(corner)
    return kept


def _picture(title: str, frame: _Frame, keys: Sequence[Key]) -> Picture:
    return Picture(title=title, svg=_svg(title, [*_axes(frame), *frame.parts]), keys=tuple(keys))


def _svg(title: str, parts: Sequence[str]) -> str:
    name = _escape(title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"<title>{name}</title>{''.join(parts)}</svg>"
    )


def _axes(frame: _Frame) -> Iterator[str]:
    left, right, bottom = LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in frame.y.ticks:
        _, y = frame.at(frame.x.low, tick.at)
        yield f'<path class="grid" d="M{left} {y:g}H{right}"/>'
        yield f'<text x="{left - 5}" y="{y + 4:g}" text-anchor="end">{_escape(tick.text)}</text>'
    yield f'<path class="axis" d="M{left} {bottom}H{right}"/>'
    for tick in frame.x.ticks:
        x, _ = frame.at(tick.at, frame.y.low)
        half = len(tick.text) * LETTER / 2
        anchor = "end" if x + half > WIDTH else "start" if x - half < 0 else "middle"
        yield f'<path class="axis" d="M{x:g} {bottom}v4"/>'
        yield f'<text x="{x:g}" y="{bottom + 17}" text-anchor="{anchor}">{_escape(tick.text)}</text>'
    middle = (left + right) / 2
    yield f'<text class="label" x="{middle:g}" y="{HEIGHT - 5}" text-anchor="middle">{_escape(frame.x.label)}</text>'
    yield f'<text class="label" x="2" y="{TOP - 11}">{_escape(frame.y.label)}</text>'


def _marks(frame: _Frame, marks: Sequence[Mark]) -> None:
    """Lines across, their texts one below the other where they would meet."""
    taken: list[tuple[float, float, int]] = []
    for mark in sorted(marks, key=lambda each: each.at):
        x, _ = frame.at(mark.at, frame.y.low)
        width = (len(mark.text) + 1) * LETTER
        begin = x + 3 if x + 3 + width <= WIDTH else max(2.0, x - 3 - width)
        row = next(
            row
            for row in range(len(taken) + 1)
            if not any(row == other and begin < end and start < begin + width for start, end, other in taken)
        )
        taken.append((begin, begin + width, row))
        frame.parts.append(f'<path class="mark" d="M{x:g} {TOP}V{HEIGHT - BOTTOM}"/>')
        frame.parts.append(f'<text class="marked" x="{begin:g}" y="{TOP + 10 + 14 * row}">{_escape(mark.text)}</text>')


def _rectangle(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect class="{_escape(style)}" x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:.1f}"/>'


def _circle(x: float, y: float, style: str, said: str) -> str:
    return f'<circle class="dot {_escape(style)}" cx="{x:g}" cy="{y:g}" r="3.5"><title>{_escape(said)}</title></circle>'


def _path(corners: Sequence[tuple[float, float]], style: str, said: str) -> str:
    way = "M" + "L".join(f"{x:g} {y:g}" for x, y in corners)
    return f'<path class="{_escape(style)}" d="{way}"><title>{_escape(said)}</title></path>'


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
