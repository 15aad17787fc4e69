"""The parts of a report about labels: by frequency, one by one, which are taken for which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ray_xml.charts import Axis, Chart, Series, bar_chart, line_chart
from ray_xml.label_table import Bin, LabelScores, frequency_table, ranked
from ray_xml.report_data import Gathered, Measured
from ray_xml.report_html import beside, charts, figure, name, paragraph, table, words
from ray_xml.report_tally import CHOSEN
from ray_xml.svg import Point, number, shortened

NAME = 90  # characters of a name that are shown
_SHOWN = 12  # worst, best labels, confusions
_RANKS = 250  # points of a rank curve


def by_frequency(measured: Measured) -> str:
    """Accuracy by training documents, and how labels are spread, as markup."""
    bins = frequency_table(measured.tally, measured.counts)
    top = measured.tally.top
    chart = recall_bars(
        bins,
        [("model", [b.recall for b in bins]), ("most frequent labels", [b.plain for b in bins])],
        top,
    )
    rows = [
        [
            words(b.name),
            f"{b.labels:,}",
            f"{b.pairs:,}",
            *([f"{b.recall:.1f}", f"{b.plain:.1f}"] if b.pairs else ["–", "–"]),
            f"{b.precision:.1f}",
        ]
        for b in bins
    ]
    head = ["training documents", "labels", "pairs", f"R@{top}", "baseline", f"precision@{top}"]
    told = (
        f"Pairs: (document, true label) on the split. R@{top}: share of the pairs found among the "
        f"document's best {top}. Precision: share of the labels of the bin given there that are "
        "right. In percent."
    )
    return (
        charts(figure("Recall by label frequency", chart), _rank_plot(measured))
        + table(head, rows)
        + paragraph(told)
    )


def recall_bars(bins: Sequence[Bin], bars: Sequence[tuple[str, list[float]]], top: int) -> Chart:
    """Bars by bin of training documents, in percent."""
    names = [
        (str(b.low) if b.low < 10_000 else number(b.low)) + ("" if b.low == b.high else "+")
        for b in bins
    ]
    label = f"recall@{top}, percent"
    return bar_chart(
        "recall by label frequency", names, bars, label, x_label="training documents", high=100.0
    )


def rank_points(counts: np.ndarray) -> list[Point]:
    """(rank, documents) of the labels that have any, the most frequent first, at most ``_RANKS``
    of them, spread evenly over the logarithm of the rank."""
    falling = np.sort(counts[counts > 0])[::-1]
    if not len(falling):
        return []
    ranks = np.unique(np.geomspace(1, len(falling), _RANKS).round().astype(np.int64))
    return [(float(rank), float(falling[rank - 1])) for rank in ranks]


def _rank_plot(measured: Measured) -> str:
    series = [
        Series("train", rank_points(measured.counts), 1),
        Series(measured.split, rank_points(measured.tally.true), 2),
    ]
    series = [one for one in series if one.points]
    last = max(x for one in series for x, _ in one.points)
    most = max(y for one in series for _, y in one.points)
    x = Axis("rank of the label", 1.0, max(last, 10.0), log=True)
    y = Axis("documents", 1.0, max(most * 1.2, 10.0), log=True)
    none = int((measured.counts == 0).sum())
    told = f"{none:,} labels have no training document: they are never predicted." * (none > 0)
    chart = line_chart("label frequencies", series, x, y)
    return figure("Label frequencies", chart, told)


def one_by_one(gathered: Gathered, measured: Measured) -> str:
    """The worst and the best labels, and frequent confusions, as markup."""
    tally = measured.tally
    scores = LabelScores.of(tally)
    worst, best, enough = ranked(tally, scores, _SHOWN)

    def lines(labels: np.ndarray) -> list[list[str]]:
        return [
            [
                shown_name(gathered.label(int(one))),
                f"{tally.true[one]:,}",
                f"{measured.counts[one]:,}",
                f"{scores.recall[one]:.1f}",
                f"{scores.precision[one]:.1f}" if tally.chosen[one] else "–",
                f"{scores.f1[one]:.1f}",
            ]
            for one in labels.tolist()
        ]

    head = ["label", measured.split, "train", f"R@{tally.top}", "precision", "F1"]
    told = (
        f"Labels with at least {enough} documents of the split, ordered by R@{tally.top}, the "
        f"share of their documents that have them among the best {tally.top}. Precision and F1 "
        f"count a label as given where its score is at least {CHOSEN:g}. In percent."
    )
    parts = [
        beside(
            f"<h3>The worst</h3>{table(head, lines(worst))}",
            f"<h3>The best</h3>{table(head, lines(best))}",
        ),
        paragraph(told),
        _confusions(tally.confusions[:_SHOWN], gathered.label, measured),
    ]
    return "".join(parts)


def _confusions(found: np.ndarray, label: Callable[[int], str], measured: Measured) -> str:
    if not len(found):
        return ""
    rows = [
        [
            shown_name(label(given)),
            shown_name(label(missed)),
            f"{times:,}",
            f"{100.0 * times / max(int(measured.tally.true[missed]), 1):.1f}",
        ]
        for given, missed, times in found.tolist()
    ]
    head = ["given", "instead of", "documents", "% of its documents"]
    told = (
        "Of each document the best labels, as many as it has true ones (at most "
        f"{measured.tally.top}): a wrong one stands in the place of one that is missed."
    )
    heading = "<h3>Frequent confusions</h3>"
    return heading + table(head, rows, left=2) + paragraph(told)


def shown_name(text: str) -> str:
    """A name as markup, cut where it is long."""
    return name(shortened(text, NAME))
