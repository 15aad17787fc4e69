"""The parts of a report about a split as a whole: the metrics, and what a score is worth."""

from __future__ import annotations

import numpy as np

from ray_xml.calibration import BINS, ScoreBins
from ray_xml.charts import Axis, Series, bar_chart, line_chart
from ray_xml.document_scores import SURE
from ray_xml.report_data import Measured
from ray_xml.report_html import charts, figure, paragraph, table, words
from ray_xml.svg import Point

_FEWEST = 10  # predictions whose precision is worth a point of a curve
KINDS, CUTS = ("P", "nDCG", "PSP", "PSnDCG", "R"), (1, 3, 5)


def metrics_table(measured: Measured) -> str:
    """The metrics beside the baseline's, as markup."""
    ours, plain = measured.tally.metrics, measured.plain
    errors = measured.tally.documents.errors()
    head = ["", *(f"{who} @{k}" for who in ("model", "baseline") for k in CUTS)]
    rows = []
    for kind in KINDS:
        keys = [f"{kind}@{k}" for k in CUTS]
        model = [
            f"{ours[key]:.2f} <span class='dim'>±{SURE * errors[key]:.2f}</span>" for key in keys
        ]
        rows.append([words(kind), *model, *(f"{plain[key]:.2f}" for key in keys)])
    told = (
        "In percent. ±: 95 % interval over the draw of the documents. The baseline gives "
        "every document the labels that are most frequent in training."
    )
    return table(head, rows) + paragraph(told)


def score_charts(measured: Measured) -> str:
    """Reliability, and precision, recall and coverage by threshold, as markup."""
    tally = measured.tally
    shown = []
    diagonal = Series("calibrated", [(0.0, 0.0), (1.0, 1.0)], 8, dashed=True)
    series = [diagonal]
    for style, (what, bins) in enumerate(_kinds(tally.first, tally.every, tally.top), 1):
        points = [(score, right) for score, right, _ in bins.reliability()]
        series.append(Series(what, points, style, dots=True))
    x, y = Axis("predicted score", 0.0, 1.0), Axis("share that is right", 0.0, 1.0)
    errors = (
        f"Expected calibration error: {100 * tally.first.error():.2f} % of the best labels, "
        f"{100 * tally.every.error():.2f} % of the best {tally.top}; {BINS} bins."
    )
    shown.append(figure("Calibration", line_chart("calibration", series, x, y), errors))
    counts = tally.every.count.reshape(BINS, -1).sum(1)
    right = tally.every.right.reshape(BINS, -1).sum(1)
    names = [f"{place / BINS:.2f}" for place in range(BINS)]
    bars = [("right", right.tolist()), ("wrong", (counts - right).tolist())]
    chart = bar_chart(
        "predictions by score", names, bars, "predictions", x_label="score from", piled=True
    )
    shown.append(figure("Predictions by score", chart, f"the best {tally.top} of each document"))
    curves = threshold_curves(tally.every, tally.first, int(tally.true.sum()), measured.documents)
    chart = line_chart(
        "threshold", curves, Axis("threshold of the score", 0.0, 1.0), Axis("percent", 0.0, 100.0)
    )
    told = (
        f"Of the best {tally.top} labels only those at or above the threshold. Coverage: documents "
        "that get a label at all."
    )
    shown.append(figure("What a threshold buys", chart, told))
    curve = coverage_curve(tally.first, measured.documents)
    x, y = Axis("coverage, percent", 0.0, 100.0), Axis("precision, percent", 0.0, 100.0)
    told = (
        "The best label of the documents whose best score is highest, and of more and more others."
    )
    chart = line_chart("precision by coverage", [Series("", curve, 1)], x, y)
    shown.append(figure("Precision by coverage", chart, told))
    return charts(*shown)


def threshold_curves(
    every: ScoreBins, first: ScoreBins, pairs: int, documents: int
) -> list[Series]:
    """Precision, recall and coverage in percent by threshold.

    Args:
        every, first: scores of all predictions, and of each document's best.
        pairs: true (document, label) pairs of the split.
    """
    thresholds, given, right = every.thresholds()
    covered = first.thresholds()[1]
    some = given >= min(_FEWEST, given[0])
    precision = right[some] / np.maximum(given[some], 1)
    return [
        Series("precision", _points(thresholds[some], 100.0 * precision), 1),
        Series("recall", _points(thresholds, 100.0 * right / max(pairs, 1)), 2),
        Series("coverage", _points(thresholds, 100.0 * covered / max(documents, 1)), 3),
    ]


def coverage_curve(first: ScoreBins, documents: int) -> list[Point]:
    """(share of the documents whose best score is at or above a threshold, share of these whose
    best label is right) for falling thresholds, in percent."""
    _, given, right = first.thresholds()
    some = given >= max(min(_FEWEST, given[0]), 1)
    covered, precision = given[some] / max(documents, 1), right[some] / given[some]
    return _points(100.0 * covered, 100.0 * precision)[::-1]


def _points(x: np.ndarray, y: np.ndarray) -> list[Point]:
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _kinds(first: ScoreBins, every: ScoreBins, top: int) -> list[tuple[str, ScoreBins]]:
    return [("best label", first), (f"best {top} labels", every)]
