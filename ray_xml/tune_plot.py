"""The picture of a search, as an SVG that any browser shows: each trial's metric over time, and
parallel coordinates, one axis a searched key, one line a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ray_xml import svg
from ray_xml.run_text import counted
from ray_xml.search_log import TrialRecord
from ray_xml.svg import Point
from ray_xml.tune_config import Domain

_WIDTH, _HEIGHT, _LEFT, _RIGHT = 900, 280, 60, 40
_TOP, _GAP = 50, 90  # above the first panel, between the panels
_GREY, _BEST, _DEFAULT = "#bbbbbb", "#d62728", "#1f77b4"


def plot(trials: Sequence[TrialRecord], space: Mapping[str, Domain], metric: str, best: int) -> str:
    """The SVG text.

    Args:
        best: the number of the trial that is drawn in red; trial 0 is blue.
    """
    shown = [one for one in trials if one.points]
    # The two that matter are drawn last, above the others.
    shown.sort(key=lambda one: (one.number == best, one.number == 0, one.number))
    height = _TOP + 2 * _HEIGHT + _GAP + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(_LEFT, 18, f"{metric} on validation, {counted(len(shown), 'trial')}", size=14),
        _text(_LEFT, 34, f"red: trial {best}, the best; blue: the config as it stands"),
        *_over_time(shown, metric, best),
        *_parallel(shown, space, metric, best),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _over_time(shown: Sequence[TrialRecord], metric: str, best: int) -> list[str]:
    low, high = _limits(shown)
    end = max((point.at for one in shown for point in one.points), default=1.0) or 1.0
    bottom = _TOP + _HEIGHT
    parts = [_line([(_LEFT, _TOP), (_LEFT, bottom), (_WIDTH - _RIGHT, bottom)], "#333333", 1)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = bottom - share * _HEIGHT, _LEFT + share * (_WIDTH - _LEFT - _RIGHT)
        parts.append(_text(_LEFT - 6, y + 4, f"{low + share * (high - low):.2f}", "end"))
        parts.append(_text(x, bottom + 16, f"{share * end:,.0f} s", "middle"))
    for one in shown:
        points = [
            (
                _LEFT + point.at / end * (_WIDTH - _LEFT - _RIGHT),
                bottom - (point.value - low) / (high - low) * _HEIGHT,
            )
            for point in one.points
        ]
        parts.append(_drawn(one, points, best, dots=True))
    return parts


def _parallel(
    shown: Sequence[TrialRecord], space: Mapping[str, Domain], metric: str, best: int
) -> list[str]:
    low, high = _limits(shown, of_best=True)
    top = _TOP + _HEIGHT + _GAP
    bottom = top + _HEIGHT
    step = (_WIDTH - 2 * _LEFT - _RIGHT) / len(space) if space else 0
    places = [_LEFT + 20 + step * number for number in range(len(space) + 1)]
    parts = []
    for x, (key, domain) in zip(places, space.items(), strict=False):
        parts.append(_line([(x, top), (x, bottom)], "#333333", 1))
        parts.append(_text(x, top - 22, key, "middle"))
        first, last = domain.edges()[0], domain.edges()[-1]
        parts.append(_text(x, top - 8, _short(last), "middle"))
        parts.append(_text(x, bottom + 14, _short(first), "middle"))
    parts.append(_line([(places[-1], top), (places[-1], bottom)], "#333333", 1))
    parts.append(_text(places[-1], top - 22, f"best {metric}", "middle"))
    parts.append(_text(places[-1], top - 8, f"{high:.2f}", "middle"))
    parts.append(_text(places[-1], bottom + 14, f"{low:.2f}", "middle"))
    for one in shown:
        points = []
        for x, (key, domain) in zip(places, space.items(), strict=False):
            place = domain.place(one.parameters.get(key))
            if place is not None:  # the config as it stands may lie outside the space
                points.append((x, bottom - place * _HEIGHT))
        value = one.best if one.best is not None else low
        points.append((places[-1], bottom - (value - low) / (high - low) * _HEIGHT))
        parts.append(_drawn(one, points, best, dots=False))
    return parts


def _limits(shown: Sequence[TrialRecord], *, of_best: bool = False) -> tuple[float, float]:
    """The lowest and the highest value, apart from each other."""
    if of_best:
        values = [one.best for one in shown if one.best is not None]
    else:
        values = [point.value for one in shown for point in one.points]
    return svg.limits(values)


def _drawn(one: TrialRecord, points: list[Point], best: int, *, dots: bool) -> str:
    colour = _BEST if one.number == best else _DEFAULT if one.number == 0 else _GREY
    marks = [svg.circle(point, 2.5, fill=colour) for point in points]
    line = _line(points, colour, 2.5 if one.number in (best, 0) else 1.2)
    title = svg.title(f"trial {one.number}: {one.best:.2f}, {one.status}")
    return svg.tag("g", title, line, *(marks if dots else []))


def _line(points: list[Point], colour: str, width: float) -> str:
    return svg.line(points, stroke=colour, stroke_width=width)


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 11) -> str:
    return svg.text((x, y), text, anchor, font_size=size)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
