"""The lender's pictures: one point, nothing at all, hostile text; each is whole, and its text fits."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.unit.examples.bnpl import load

HOSTILE = "</svg><script>alert(\"1\" & '2')</script>"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    return load("pictures")


def drawn(picture: Any) -> ElementTree.Element:
    """The picture as XML; what would break out of it is found here. All its numbers are inside of it."""
    root = ElementTree.fromstring(picture.svg)
    width, height = (float(each) for each in root.attrib["viewBox"].split()[2:])
    assert "script" not in {each.tag for each in root.iter()}
    for each in root.iter():
        for name, low, high in (("x", 0.0, width), ("y", 0.0, height), ("cx", 0.0, width), ("cy", 0.0, height)):
            if name in each.attrib:
                assert low <= float(each.attrib[name]) <= high, ElementTree.tostring(each)
        assert "nan" not in each.attrib.get("d", "").lower()
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter() if each.tag == "text"]


def ways(pictures: ModuleType) -> dict[str, Callable[[str, int], Any]]:
    """Each kind of picture from a text and a number of things to draw."""

    def key(text: str) -> Any:
        return pictures.Key(name=text, style="first")

    def stacked(text: str, count: int) -> Any:
        bars = [pictures.Bar(label=text, counts=[3]) for _ in range(count)]
        return pictures.stacked(text, bars, [key(text)], x_label=text, y_label=text)

    def histogram(text: str, count: int) -> Any:
        x = pictures.linear(text, 0.0, 1.0)
        edges = np.linspace(0, 1, max(1, count) + 1).tolist()
        groups = [pictures.Steps(key=key(text), heights=[5] * count, filled=True)] if count else []
        marks = [pictures.Mark(at=0.4, text=text), pictures.Mark(at=0.45, text=text)]
        return pictures.histogram(text, edges, groups, x=x, y_label=text, marks=marks)

    def lines(text: str, count: int) -> Any:
        points = [(i / max(1, count - 1), 0.5) for i in range(count)]
        axes = pictures.shares(text)
        return pictures.lines(text, [pictures.Line(key=key(text), points=points)], x=axes, y=axes, diagonal=True)

    def dots(text: str, count: int) -> Any:
        axis = pictures.powers(text, 1e-3, 1.0, shown=pictures.percent)
        found = [pictures.Dot(x=0.01, y=0.02, low=0.001, high=0.1, said=text) for _ in range(count)]
        return pictures.dots(text, [(key(text), found)], x=axis, y=axis)

    return {"stacked": stacked, "histogram": histogram, "lines": lines, "dots": dots}


KINDS = ("stacked", "histogram", "lines", "dots")


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_is_text(pictures: ModuleType, kind: str) -> None:
    picture = ways(pictures)[kind](HOSTILE, 2)
    assert "<script" not in picture.svg
    root = drawn(picture)
    assert root.attrib["aria-label"] == HOSTILE
    assert HOSTILE in texts(root)  # an axis says it, to the letter


@pytest.mark.parametrize("kind", KINDS)
def test_of_nothing_it_is_said_that_there_is_nothing(pictures: ModuleType, kind: str) -> None:
    picture = ways(pictures)[kind]("A title", 0)
    (said,) = texts(drawn(picture))
    assert said
    assert picture.keys == ()


@pytest.mark.parametrize("kind", KINDS)
def test_one_thing_is_drawn(pictures: ModuleType, kind: str) -> None:
    root = drawn(ways(pictures)[kind]("A title", 1))
    shapes = [each for each in root.iter() if "first" in each.attrib.get("class", "").split()]
    assert shapes
    assert len(texts(root)) >= 4  # both axes, with ticks


def test_bars_are_as_high_as_their_counts(pictures: ModuleType) -> None:
    keys = [pictures.Key(name=name, style=name) for name in ("approve", "decline")]
    bars = [pictures.Bar(label="a", counts=[30, 10]), pictures.Bar(label="b", counts=[0, 20])]
    root = drawn(pictures.stacked("t", bars, keys, x_label="x", y_label="y"))
    heights = [(r.attrib["class"], float(r.attrib["height"])) for r in root.iter() if r.tag == "rect"]
    assert [style for style, _ in heights] == ["approve", "decline", "decline"]  # a count of nothing is no bar
    assert heights[0][1] == pytest.approx(3 * heights[1][1], rel=0.01)
    assert heights[2][1] == pytest.approx(2 * heights[1][1], rel=0.01)


def test_labels_of_many_bars_do_not_meet(pictures: ModuleType) -> None:
    bars = [pictures.Bar(label=f"{i} Oct, 18 h", counts=[1]) for i in range(1, 32)]
    root = drawn(pictures.stacked("t", bars, [pictures.Key(name="k", style="k")], x_label="x", y_label="y"))
    places = [float(each.attrib["x"]) for each in root.iter() if each.tag == "text" and "Oct" in (each.text or "")]
    assert len(places) >= 2
    assert min(np.diff(places)) >= len("31 Oct, 18 h") * pictures.LETTER


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 7), (0, 999), (0, 0.013), (5, 5), (0, 1_234_567)])
def test_ticks_are_round_and_reach_the_highest(pictures: ModuleType, low: float, high: float) -> None:
    axis = pictures.linear("y", low, high)
    assert axis.low == low
    assert axis.high >= high
    assert 2 <= len(axis.ticks) <= 6
    assert len({tick.text for tick in axis.ticks}) == len(axis.ticks)
    assert axis.ticks[-1].at == pytest.approx(axis.high)


def test_numbers_have_separators_and_as_many_places_as_they_need(pictures: ModuleType) -> None:
    assert [tick.text for tick in pictures.linear("y", 0, 4_000).ticks] == ["0", "1,000", "2,000", "3,000", "4,000"]
    assert [tick.text for tick in pictures.linear("y", 0, 0.02).ticks][1] == "0.005"
    axis = pictures.powers("x", 0.002, 0.5, shown=pictures.percent)
    assert [tick.text for tick in axis.ticks] == ["0.1%", "1%", "10%", "100%"]


def test_what_is_outside_of_an_axis_lies_at_its_edge(pictures: ModuleType) -> None:
    axis = pictures.powers("x", 0.01, 1.0, shown=str)
    assert [axis.share(value) for value in (0.0, -1.0, 0.01, 0.1, 1.0, 5.0)] == [0, 0, 0, 0.5, 1, 1]


def test_a_thinned_line_ends_where_the_line_ends(pictures: ModuleType) -> None:
    corners = [(i / 100, i / 200) for i in range(2_000)]
    kept = pictures.thinned(corners)
    assert kept[0] == corners[0]
    assert kept[-1] == corners[-1]
    assert len(kept) < 100


def test_shares_are_said_in_percent_and_counts_are_not(pictures: ModuleType) -> None:
    x = pictures.linear("x", 0.0, 1.0)
    group = pictures.Steps(key=pictures.Key(name="k", style="k"), heights=[1.0])
    for percents in (True, False):
        root = drawn(pictures.histogram("t", [0.0, 1.0], [group], x=x, y_label="y", percents=percents))
        assert ("100%" in texts(root)) == percents
