"""Charts: everything lies inside the picture, and at the place that its numbers say."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from ray_xml.charts import (
    HEIGHT,
    WIDTH,
    Axis,
    Chart,
    Dot,
    Series,
    bar_chart,
    dot_map,
    line_chart,
)


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(chart.markup)


def of_class(root: ElementTree.Element, name: str, kind: str) -> list[ElementTree.Element]:
    return [one for one in root.iter(name) if one.get("class") == kind]


def places(one: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in one.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in pairs]


def test_a_line_is_where_its_numbers_say() -> None:
    series = Series("loss", [(0, 0), (5, 10), (10, 20), (7, math.nan), (math.inf, 1)], 2)
    x, y = Axis("step", 0, 10), Axis("loss", 0, 20)
    root = drawn(line_chart("a <name>", [series], x, y, marks=[(5, "refresh & more")]))
    (line,) = of_class(root, "polyline", "s2")
    first, middle, last = places(line)
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)
    assert first[0] < last[0] <= WIDTH
    assert 0 <= last[1] < first[1] <= HEIGHT
    (mark,) = of_class(root, "polyline", "mark")
    assert places(mark)[0][0] == middle[0]
    titles = [one.text for one in root.iter("title")]
    assert titles == ["a <name>", "refresh & more"]


def test_a_log_axis_has_equal_steps_for_equal_factors() -> None:
    axis = Axis("rank", 1, 1000, log=True)
    assert [axis.share(v) for v in (1, 10, 100, 1000)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_single_point_is_a_dot_with_its_number() -> None:
    chart = line_chart("x", [Series("P@1", [(1, 64.5)], 3)], Axis("epoch", 0, 2), Axis("", 60, 70))
    root = drawn(chart)
    (dot,) = of_class(root, "circle", "f3")
    assert [one.text for one in dot] == ["P@1: 64.5 at 1"]
    assert of_class(root, "polyline", "s3") == []
    assert chart.legend == [(3, "P@1")]


def test_bars_are_as_high_as_their_numbers() -> None:
    bars = [("a", [1.0, 2.0]), ("b", [3.0, 0.0])]
    for piled in (False, True):
        root = drawn(bar_chart("bars", ["one", "two"], bars, "s", piled=piled))
        heights = {
            kind: [float(one.attrib["height"]) for one in of_class(root, "rect", kind)]
            for kind in ("f1", "f2")
        }
        unit = heights["f1"][0]
        assert heights["f1"] == pytest.approx([unit, 2 * unit], abs=0.2)
        assert heights["f2"] == pytest.approx([3 * unit, 0], abs=0.2)
        below, above = (of_class(root, "rect", kind)[0].attrib for kind in ("f1", "f2"))
        if piled:
            top = float(above["y"]) + float(above["height"])
            assert top == pytest.approx(float(below["y"]), abs=0.2)
            assert above["x"] == below["x"]
        else:
            left = float(below["x"]) + float(below["width"])
            assert float(above["x"]) == pytest.approx(left, abs=0.2)
        for one in root.iter("rect"):
            assert 0 <= float(one.attrib["y"]) <= HEIGHT
    said = [one.text for one in root.iter("title")]
    assert {"one, a: 1", "two, b: 0"} <= set(said)


def test_only_some_groups_are_named_where_there_is_no_room() -> None:
    names = [f"group {n}" for n in range(60)]
    root = drawn(bar_chart("bars", names, [("a", [1.0] * 60)], "s"))
    shown = [one for one in root.iter("text") if (one.text or "").startswith("group")]
    gap = float(shown[1].attrib["x"]) - float(shown[0].attrib["x"])
    assert 1 < len(shown) < 60
    assert gap > 6.5 * len("group 10")


def test_words_of_a_map_do_not_cover_each_other() -> None:
    dots = [Dot((n % 10 / 3, n // 10), f"title {n}", n % 8, f"some label {n}") for n in range(100)]
    root = drawn(dot_map("map", dots, "x", "y"))
    assert len(list(root.iter("circle"))) == 100
    words = of_class(root, "text", "word")
    assert words[0].text == "some label 0"
    boxes = []
    for one in words:
        wide, at = 6.3 * len(one.text or ""), float(one.attrib["x"])
        left = at if one.attrib["text-anchor"] == "start" else at - wide
        boxes.append((left, float(one.attrib["y"]), left + wide))
        assert left >= 0
        assert left + wide <= WIDTH
    for place, a in enumerate(boxes):
        for b in boxes[place + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or abs(a[1] - b[1]) >= 13
