"""SVG by hand: elements as escaped text, numbers short, and round places for an axis's ticks.

What is drawn here needs no script, no font and nothing from outside. Colours and strokes are
attributes, or classes that the page around the picture gives a meaning.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]
Attribute = str | float | int

_TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def tag(name: str, *children: str, **attributes: Attribute) -> str:
    """An element. ``children`` are markup already; attributes are escaped, ``class_`` is class,
    and an underscore stands for a hyphen."""
    parts = [name]
    for key, value in attributes.items():
        if isinstance(value, float):
            value = f"{value:.1f}"
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(plain(str(value)))}"')
    opened = " ".join(parts)
    return f"<{opened}>{''.join(children)}</{name}>" if children else f"<{opened}/>"


def line(points: Iterable[Point], **attributes: Attribute) -> str:
    """A line through the points, not filled."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polyline", points=path, fill="none", **attributes)


def circle(at: Point, r: float, *children: str, **attributes: Attribute) -> str:
    """A dot."""
    return tag("circle", *children, cx=at[0], cy=at[1], r=r, **attributes)


def rect(at: Point, width: float, height: float, *children: str, **attributes: Attribute) -> str:
    """A rectangle by its corner above on the left."""
    return tag("rect", *children, x=at[0], y=at[1], width=width, height=height, **attributes)


def text(at: Point, content: str, anchor: str = "start", **attributes: Attribute) -> str:
    """A line of text, of any characters."""
    words = escape(plain(content))
    return tag("text", words, x=at[0], y=at[1], text_anchor=anchor, **attributes)


def title(content: str) -> str:
    """What is shown where the pointer rests on the element around it."""
    return tag("title", escape(plain(content)))


def plain(content: str) -> str:
    """The text without what a document must not hold or what would turn the text around it:
    control characters, lone surrogates, and marks that set the direction of writing."""
    if content.isascii() and content.isprintable():
        return content
    return "".join(
        "\ufffd" if one in _TURNS or unicodedata.category(one) in ("Cc", "Cs") else one
        for one in content.replace("\n", " ").replace("\t", " ")
    )


def shortened(content: str, length: int) -> str:
    """At most ``length`` characters, with … where some were cut."""
    return content if len(content) <= length else content[: length - 1].rstrip() + "…"


def number(value: float) -> str:
    """A tick's number: 20k, 1.5, 0.002."""
    for unit, name in _UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers within low..high, about ``count``: multiples of 1, 2, 2.5 or 5 times a power
    of ten, or of ten's powers alone where that is enough.

    Args:
        whole: only integers.
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * by for by in (1.0, 2.0, 2.5, 5.0, 10.0)]
    if whole:
        steps = [
            max(round(step), 1) for step in steps if abs(step - round(step)) < 1e-9 or step < 1
        ]
    step = next((one for one in steps if one >= rough * (1 - 1e-9)), steps[-1])
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within low..high, which are positive; fewer where there are more than six."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / 6))
    return [10.0**power for power in range(first, last + 1, every)]


def limits(values: Sequence[float], *, zero: bool = False) -> tuple[float, float]:
    """The lowest and the highest finite value, apart from each other.

    Args:
        zero: 0 lies among them.
    """
    finite = [value for value in values if math.isfinite(value)] + ([0.0] if zero else [])
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if high > low:
        return low, high
    return (low, low + 1.0) if zero and low == 0 else (low - 0.5, high + 0.5)
