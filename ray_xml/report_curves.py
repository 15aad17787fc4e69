"""The parts of a report about training: loss, recall, validation, time and memory by epoch.

They take several runs as easily as one, which ``compare`` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_xml.charts import STYLES, Axis, Chart, Series, bar_chart, line_chart
from ray_xml.report_html import charts, figure, paragraph
from ray_xml.run_records import scalars
from ray_xml.run_text import duration
from ray_xml.svg import Point

_POINTS = 300  # of a loss curve: what the picture can show
_METRICS = ("P@1", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@5")
_RECALLS = (("shortlist_recall", "shortlist"), ("candidate_recall", "candidates"))
_PHASES = 7  # the longest have a colour of their own

Lines = Sequence[Mapping[str, Any]]


def curves(lines: Lines, losses: np.ndarray) -> str:
    """Loss, recall and validation of one run, as markup; empty where there is no epoch yet.

    Args:
        lines: of metrics.jsonl. losses: float32 [steps], of every step.
    """
    if not lines:
        return ""
    shown = [_losses(lines, losses)]
    recalls = [
        Series(what, _points(lines, key), style, dots=True)
        for style, (key, what) in enumerate(_RECALLS, 1)
    ]
    checked = [
        Series(key, _points(lines, f"validation/{key}"), style, dots=True)
        for style, key in enumerate(_METRICS, 1)
    ]
    speed = [Series("", _points(lines, "docs_per_second"), 1, dots=True)]
    marks = refreshes(lines)
    for title, series, label in (
        ("Validation", checked, "percent"),
        ("Recall of candidates", recalls, "percent"),
        ("Speed", speed, "training documents a second"),
    ):
        filled = [one for one in series if one.points]
        if filled:
            zero = series is speed
            chart = over_epochs(title, filled, lines, label, marks, zero=zero)
            shown.append(figure(title, chart))
    missing = [] if any(one.points for one in checked) else ["no validation was made"]
    told = "Dotted uprights: refreshes of proxies and shortlists." if marks else ""
    return charts(*shown) + paragraph(" ".join([told, *missing])) * bool(told or missing)


def over_epochs(
    title: str,
    series: Sequence[Series],
    lines: Lines,
    label: str,
    marks: Sequence[tuple[float, str]] = (),
    *,
    start: float | None = None,
    zero: bool = False,
) -> Chart:
    """Lines over the epochs of ``lines``, or from ``start`` on; the upright axis begins with 0 if
    ``zero``."""
    values = [y for one in series for _, y in one.points]
    epochs = [line["epoch"] for line in lines]
    first = min(epochs) - 0.2 if start is None else start
    x = Axis("epoch", first, max(epochs) + 0.2, whole=True)
    return line_chart(title, series, x, Axis.around(label, values, zero=zero), marks=marks)


def epoch_series(name: str, lines: Lines, key: str, style: int) -> Series:
    """One number of each epoch that has it; ``key`` as ``run_records.scalars`` has it."""
    return Series(name, _points(lines, key), style, dots=True)


def refreshes(lines: Lines) -> list[tuple[float, str]]:
    """Where proxies were fitted anew at the end of an epoch: their loss is reported there."""
    return [
        (float(line["epoch"]), f"refresh after epoch {line['epoch']}")
        for line in lines
        if "proxy_loss" in line
    ]


def loss_curve(losses: np.ndarray) -> tuple[list[Point], list[Point]]:
    """(means of stretches, the same smoothed), at most ``_POINTS`` each, by step.

    The smoothed value is the mean of a twentieth of the curve around it, or of as much of that as
    there is to both sides, so that it neither lags behind nor bends at the ends. Losses that are
    not finite are left out.

    Args:
        losses: float32 [steps].
    """
    parts = np.array_split(np.asarray(losses, np.float64), min(_POINTS, max(len(losses), 1)))
    raw: list[Point] = []
    step = 0
    for part in parts:
        finite = part[np.isfinite(part)]
        if len(finite):
            raw.append((step + (len(part) + 1) / 2, float(finite.mean())))
        step += len(part)
    smooth = []
    for place, (at, _) in enumerate(raw):
        reach = min(len(raw) // 40, place, len(raw) - 1 - place)
        near = [value for _, value in raw[place - reach : place + reach + 1]]
        smooth.append((at, sum(near) / len(near)))
    return raw, smooth


def loss_series(name: str, lines: Lines, losses: np.ndarray, style: int) -> Series:
    """The smoothed loss of a run over its epochs; the epochs' own where steps were not kept."""
    smooth = loss_curve(losses)[1]
    if len(smooth) < 2 or not lines:
        return epoch_series(name, lines, "loss", style)
    epochs = float(lines[-1]["epoch"]) / len(losses)
    return Series(name, [(at * epochs, value) for at, value in smooth], style)


def _losses(lines: Lines, losses: np.ndarray) -> str:
    raw, smooth = loss_curve(losses)
    if len(raw) < 2:
        series = [epoch_series("loss", lines, "loss", 1)]
        chart = over_epochs("loss", series, lines, "loss")
        return figure("Loss", chart) if series[0].points else ""
    y = Axis.around("loss", [value for _, value in raw])
    x = Axis("step", 0.0, float(len(losses)), whole=True)
    steps = len(losses) / max(float(lines[-1]["epoch"]), 1.0)
    marks = [(at * steps, what) for at, what in refreshes(lines)]
    shown = [Series("steps", raw, 1, faint=True), Series("smoothed", smooth, 1)]
    chart = line_chart("loss of the steps", shown, x, y, marks=marks)
    return figure("Loss", Chart(chart.markup))


def time_and_memory(lines: Lines) -> str:
    """Seconds by phase and peak memory, as markup; empty where neither was recorded."""
    shown = []
    phases = phase_seconds(lines)
    if phases:
        epochs = [str(line["epoch"]) for line in lines]
        chart = bar_chart(
            "seconds by phase", epochs, phases, "seconds", x_label="epoch", piled=True
        )
        whole = duration(sum(sum(values) for _, values in phases))
        shown.append(figure("Time by phase", chart, f"{whole} in all"))
    memory = [y for _, y in _points(lines, "memory_gib")]
    if memory:
        series = [epoch_series("memory", lines, "memory_gib", 1)]
        values = Axis("GiB", 0.0, max(memory) * 1.08 or 1.0)
        x = Axis("epoch", lines[0]["epoch"] - 0.2, lines[-1]["epoch"] + 0.2, whole=True)
        chart = line_chart("peak memory", series, x, values)
        told = f"at most {max(memory):.2f} GiB, over workers and label shards together"
        shown.append(figure("Peak memory", chart, told))
    return charts(*shown)


def phase_seconds(lines: Lines) -> list[tuple[str, list[float]]]:
    """(phase, seconds in each epoch), the longest first; the shortest together as "other"."""
    names = {name for line in lines for name in line.get("seconds") or {}}
    found = {
        name: [max(scalars(line).get(f"seconds/{name}", 0.0), 0.0) for line in lines]
        for name in names
    }
    order = sorted(found, key=lambda name: (-sum(found[name]), name))
    kept = order if len(order) <= STYLES else order[:_PHASES]
    phases = [(name, found[name]) for name in kept]
    rest = [found[name] for name in order[len(kept) :]]
    if rest:
        phases.append(("other", [sum(values) for values in zip(*rest, strict=True)]))
    return phases


def _points(lines: Lines, key: str) -> list[Point]:
    found = [(float(line["epoch"]), scalars(line).get(key, math.nan)) for line in lines]
    return [(epoch, value) for epoch, value in found if math.isfinite(value)]
