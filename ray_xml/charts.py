"""Charts as inline SVG: lines, bars in groups or piles, and dots on a plane.

All have the same width in the SVG's own units, so that text has the same size in all of them and
can be read on a phone. Colours are classes (``s1`` strokes, ``f1`` fills, …) of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ray_xml import svg
from ray_xml.svg import Point

WIDTH, HEIGHT, STYLES = 440, 270, 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 14, 40


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: its name with the unit.
        low, high: its ends; on a log axis positive.
        log: whether equal steps are equal factors.
        whole: whether ticks are integers.
    """

    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @staticmethod
    def around(label: str, values: Sequence[float], *, zero: bool = False) -> Axis:
        """An axis that the finite ones of the values fill but for a rim."""
        low, high = svg.limits(values, zero=zero)
        rim = 0.05 * (high - low)
        return Axis(label, low if zero and low == 0 else low - rim, high + rim)

    def share(self, value: float) -> float:
        """Where on the axis the value lies: 0 is its begin, 1 its end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return (value - low) / (high - low) if high > low else 0.5

    def ticks(self, count: int) -> list[float]:
        if self.log:
            return svg.log_ticks(self.low, self.high)
        return svg.ticks(self.low, self.high, count, whole=self.whole)


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: for the legend; "" leaves it out.
        points: in the axes' units; those that are not finite are left out.
        style: number of its colour, from 1.
        dots: whether points are marked. faint: whether it is drawn lightly. dashed: whether so.
    """

    name: str
    points: Sequence[Point]
    style: int = 1
    dots: bool = False
    faint: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """A picture and its legend.

    Attributes:
        markup: the SVG.
        legend: (number of the colour, name).
    """

    markup: str
    legend: list[tuple[int, str]] = field(default_factory=list)


def line_chart(
    name: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    marks: Sequence[tuple[float, str]] = (),
    height: int = HEIGHT,
) -> Chart:
    """Lines over a plane.

    Args:
        name: said by screen readers.
        marks: upright lines, each with what its title says.
    """
    plane = _Plane(x, y, height)
    parts = plane.frame()
    for at, what in marks:
        along = plane.at((at, y.low))[0]
        rule = svg.line([(along, _TOP), (along, height - _BOTTOM)], class_="mark")
        parts.append(svg.tag("g", svg.title(what), rule))
    for one in series:
        points = [plane.at(p) for p in one.points if all(map(math.isfinite, p))]
        look = f"s{one.style}" + " faint" * one.faint + " dashed" * one.dashed
        if len(points) > 1:
            parts.append(svg.line(points, class_=look))
        if one.dots or len(points) == 1:
            told = [p for p in one.points if all(map(math.isfinite, p))]
            for place, (at, value) in zip(points, told, strict=True):
                said = f"{one.name}: {value:.4g} at {svg.number(at)}".removeprefix(": ")
                parts.append(svg.circle(place, 2.6, svg.title(said), class_=f"f{one.style}"))
    legend = [(one.style, one.name) for one in series if one.name]
    return Chart(_picture(name, height, parts), legend)


def bar_chart(
    name: str,
    groups: Sequence[str],
    bars: Sequence[tuple[str, Sequence[float]]],
    label: str,
    *,
    x_label: str = "",
    piled: bool = False,
    high: float | None = None,
) -> Chart:
    """Bars, one of each series a group, beside each other or ``piled`` up.

    Args:
        groups: what is written below each group; where there is no room, below some.
        bars: (name, a finite value ≥ 0 for each group).
        high: the end of the upright axis; None is the highest value.
    """
    totals = [
        sum(values[place] for _, values in bars) if piled else max(v[place] for _, v in bars)
        for place in range(len(groups))
    ]
    y = Axis(label, 0.0, high or svg.limits(totals, zero=True)[1] * 1.03)
    plane = _Plane(Axis(x_label, 0.0, float(len(groups))), y, HEIGHT)
    parts = plane.frame(x_ticks=False)
    room = (WIDTH - _LEFT - _RIGHT) / max(len(groups), 1)
    longest = max((len(group) for group in groups), default=1)
    every = max(1, math.ceil((longest * 7.5 + 6) / room))
    for place, group in enumerate(groups):
        if place % every == 0:
            middle = plane.at((place + 0.5, 0))[0]
            parts.append(svg.text((middle, HEIGHT - _BOTTOM + 15), group, "middle"))
        below = 0.0
        for order, (what, values) in enumerate(bars):
            value = values[place]
            width = room * 0.8 / (1 if piled else len(bars))
            left = plane.at((place, 0))[0] + room * 0.1 + (0 if piled else width * order)
            top = plane.at((0, below + value))[1]
            bottom = plane.at((0, below))[1]
            said = svg.title(f"{group}, {what}: {value:.4g}")
            parts.append(
                svg.rect((left, top), width, bottom - top, said, class_=f"f{order % STYLES + 1}")
            )
            below += value if piled else 0.0
    legend = [(order % STYLES + 1, what) for order, (what, _) in enumerate(bars)]
    return Chart(_picture(name, HEIGHT, parts), legend)


@dataclass(frozen=True)
class Dot:
    """A point of a map: where, what its title says, its colour's number among the shades
    (``h0``..``h7``), and what is written beside it where there is room."""

    at: Point
    title: str
    shade: int
    words: str = ""


def dot_map(name: str, dots: Sequence[Dot], x_label: str, y_label: str) -> Chart:
    """Dots on a plane; words are left out where they would cover others, those of the first dots
    first come."""
    height = 380
    x = Axis.around(x_label, [dot.at[0] for dot in dots])
    y = Axis.around(y_label, [dot.at[1] for dot in dots])
    plane = _Plane(x, y, height)
    parts = plane.frame()
    parts += [
        svg.circle(plane.at(dot.at), 3.2, svg.title(dot.title), class_=f"h{dot.shade}")
        for dot in reversed(dots)
    ]
    taken: list[tuple[float, float, float, float]] = []
    for dot in dots:
        if not dot.words:
            continue
        across, down = plane.at(dot.at)
        size = 6.3 * sum(1.7 if ord(one) > 0x2E80 else 1.0 for one in dot.words)
        right = across + 5 + size < WIDTH - _RIGHT
        left = across + 5 if right else across - 5 - size
        box = (left, down - 9, left + size, down + 5)
        inside = box[0] >= _LEFT and box[1] >= _TOP and box[3] <= height - _BOTTOM
        if not inside or any(
            box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
        ):
            continue
        taken.append(box)
        at = (across + 5 if right else across - 5, down + 4)
        parts.append(svg.text(at, dot.words, "start" if right else "end", class_="word"))
    return Chart(_picture(name, height, parts))


class _Plane:
    """From the axes' units to the picture's."""

    def __init__(self, x: Axis, y: Axis, height: int) -> None:
        self.x, self.y, self.height = x, y, height

    def at(self, point: Point) -> Point:
        across = _LEFT + self.x.share(point[0]) * (WIDTH - _LEFT - _RIGHT)
        down = self.height - _BOTTOM - self.y.share(point[1]) * (self.height - _TOP - _BOTTOM)
        return across, down

    def frame(self, *, x_ticks: bool = True) -> list[str]:
        """Axes, ticks and a grid."""
        bottom, right = self.height - _BOTTOM, WIDTH - _RIGHT
        parts = []
        for value in self.y.ticks(5):
            down = self.at((self.x.low, value))[1]
            parts.append(svg.line([(_LEFT, down), (right, down)], class_="grid"))
            parts.append(svg.text((_LEFT - 6, down + 4), svg.number(value), "end"))
        for value in self.x.ticks(6) if x_ticks else []:
            across = self.at((value, self.y.low))[0]
            parts.append(svg.line([(across, bottom), (across, bottom + 4)], class_="axis"))
            parts.append(svg.text((across, bottom + 15), svg.number(value), "middle"))
        parts.append(svg.line([(_LEFT, _TOP), (_LEFT, bottom), (right, bottom)], class_="axis"))
        middle = (_LEFT + right) / 2
        parts.append(svg.text((middle, self.height - 6), self.x.label, "middle", class_="name"))
        turned = f"rotate(-90 11 {(_TOP + bottom) / 2:.0f})"
        at = (11.0, (_TOP + bottom) / 2)
        parts.append(svg.text(at, self.y.label, "middle", class_="name", transform=turned))
        return parts


def _picture(name: str, height: int, parts: Sequence[str]) -> str:
    size = f"0 0 {WIDTH} {height}"
    return svg.tag("svg", svg.title(name), *parts, viewBox=size, role="img", class_="chart")
