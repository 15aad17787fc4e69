"""Elements of a picture: escaping, and round numbers for axes."""

from __future__ import annotations

import math
import random
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from ray_xml import svg

HOSTILE = '"><script>alert(1)</script>&amp;\u202ee\x00\ud800'


def test_whatever_is_written_is_one_text() -> None:
    drawn = svg.text((1, 2.25), HOSTILE, "middle", class_="x", font_size=9)
    element = ElementTree.fromstring(drawn)
    assert element.text == '"><script>alert(1)</script>&amp;�e��'
    assert element.attrib == {
        "x": "1", "y": "2.2", "text-anchor": "middle", "class": "x", "font-size": "9",
    }  # fmt: skip
    assert len(element) == 0


def test_attributes_are_escaped() -> None:
    element = ElementTree.fromstring(svg.tag("rect", label=HOSTILE))
    assert element.attrib == {"label": '"><script>alert(1)</script>&amp;�e��'}


def test_any_script_s_letters_stay() -> None:
    for name in ("naïve café", "日本語", "עברית", "👩‍🔬", "a  b"):
        assert svg.plain(name) == name
    assert svg.plain("a\tb\nc") == "a b c"


def test_shortened() -> None:
    assert svg.shortened("abcdef", 6) == "abcdef"
    assert svg.shortened("abcdefg", 6) == "abcde…"
    assert svg.shortened("abcd  gh", 6) == "abcd…"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (0.25, "0.25"), (999, "999"), (1250, "1.25k"), (2e6, "2M"), (-3e9, "-3G")],
)
def test_numbers_are_short(value: float, said: str) -> None:
    assert svg.number(value) == said


def test_ticks_are_round_within_and_even() -> None:
    assert svg.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert svg.ticks(0.8, 10.2, 6, whole=True) == [2, 4, 6, 8, 10]
    assert svg.ticks(0.8, 1.2, whole=True) == [1]
    assert svg.ticks(3, 3) == [3]
    rng = random.Random(1)
    for _ in range(500):
        low = rng.uniform(-1e3, 1e3)
        high = low + 10 ** rng.uniform(-4, 6)
        found = svg.ticks(low, high, 5)
        assert 1 <= len(found) <= 7
        assert all(low - 1e-9 <= one <= high + 1e-9 for one in found)
        steps = [b - a for a, b in pairwise(found)]
        assert all(math.isclose(step, steps[0], rel_tol=1e-6) for step in steps)
        whole = svg.ticks(low, high, 5, whole=True)
        assert all(one == round(one) for one in whole)


def test_log_ticks() -> None:
    assert svg.log_ticks(1, 1000) == [1, 10, 100, 1000]
    assert svg.log_ticks(3, 50) == [10]
    assert len(svg.log_ticks(1e-6, 1e9)) <= 6


def test_limits_lie_apart() -> None:
    assert svg.limits([3.0, math.nan, 1.0, math.inf]) == (1.0, 3.0)
    assert svg.limits([2.0]) == (1.5, 2.5)
    assert svg.limits([2.0, 3.0], zero=True) == (0.0, 3.0)
    assert svg.limits([0.0], zero=True) == (0.0, 1.0)
    assert svg.limits([]) == (0.0, 1.0)
