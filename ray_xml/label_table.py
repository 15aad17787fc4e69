"""Accuracy label by label and by how frequent labels are in training, from a tally's counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.metrics import top_labels_baseline
from ray_xml.report_tally import Tally

_ENOUGH = (50, 20, 10, 5, 3, 2, 1)  # test documents that a label must have to be judged, if may be


@dataclass(frozen=True)
class Bin:
    """Labels with low..high training documents.

    Attributes:
        labels, pairs: how many they are, and their (document, true label) pairs on the split.
        recall: share of the pairs that are among the document's top, in percent.
        plain: likewise of the most frequent labels.
        precision: share of the labels given (among the top) that are right, in percent.
    """

    low: int
    high: int
    labels: int
    pairs: int
    recall: float
    plain: float
    precision: float

    @property
    def name(self) -> str:
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}–{self.high:,}"


def frequency_table(tally: Tally, counts: np.ndarray) -> list[Bin]:
    """Bins of 0, 1, 2–3, 4–7, … training documents; those without labels are left out.

    Args:
        counts: int64 [L], train documents of each label.
    """
    plain = np.zeros(len(counts), np.int64)
    given = top_labels_baseline(counts, tally.top)
    plain[given[given >= 0]] = tally.true[given[given >= 0]]
    place = bin_of(counts)
    bins = []
    for number in range(int(place.max(initial=-1)) + 1):
        own = place == number
        if not own.any():
            continue
        pairs, listed, found = (int(a[own].sum()) for a in (tally.true, tally.listed, tally.found))
        bins.append(
            Bin(
                low=2 ** (number - 1) if number else 0,
                high=2**number - 1 if number else 0,
                labels=int(own.sum()),
                pairs=pairs,
                recall=100.0 * found / max(pairs, 1),
                plain=100.0 * int(plain[own].sum()) / max(pairs, 1),
                precision=100.0 * found / max(listed, 1),
            )
        )
    return bins


def bin_of(counts: np.ndarray) -> np.ndarray:
    """int64 [L]: 0 for 0 documents, else 1 + ⌊log2(documents)⌋."""
    return np.asarray(np.frexp(np.asarray(counts, np.float64))[1], np.int64)


@dataclass(frozen=True)
class LabelScores:
    """One number a label, float64 [L], in percent.

    Attributes:
        recall: of its documents, those that have it among the top.
        precision: of the documents said to have it (score ≥ ``report_tally.CHOSEN``), those that
            do; 0 where there are none.
        f1: harmonic mean of that precision and of the share of its documents that are said to
            have it.
    """

    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray

    @staticmethod
    def of(tally: Tally) -> LabelScores:
        true, chosen = np.maximum(tally.true, 1), np.maximum(tally.chosen, 1)
        both = np.maximum(tally.true + tally.chosen, 1)
        return LabelScores(
            100.0 * tally.found / true,
            100.0 * tally.chosen_right / chosen,
            200.0 * tally.chosen_right / both,
        )


def ranked(tally: Tally, scores: LabelScores, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The worst and the best labels with enough documents, by recall, then F1, then documents.

    Returns:
        (the worst, the worst first; the best, the best first; documents that were enough). No
        label is in both.
    """
    enough = next((n for n in _ENOUGH if (tally.true >= n).sum() >= 2 * count), 1)
    judged = np.flatnonzero(tally.true >= enough)
    keys = (-tally.true[judged], scores.f1[judged], scores.recall[judged])
    rising = judged[np.lexsort(keys)]
    # Of equally good ones, too, those with more documents come first.
    falling = judged[np.lexsort((-tally.true[judged], -scores.f1[judged], -scores.recall[judged]))]
    shown = min(count, len(judged) // 2)
    worst = rising[:shown]
    best = falling[~np.isin(falling, worst)][: max(shown, min(count, len(judged) - shown))]
    return worst, best, enough
