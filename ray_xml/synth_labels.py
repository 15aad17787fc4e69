"""Which labels a made data set has: their frequencies, their topics, and how to draw them.

Label ranks r = 0 … L - 1 have the frequencies of Zipf and Mandelbrot, w(r) ∝ (r + q)^-s, with q
such that the most frequent label is in about one document of twelve. Each label belongs to a
random topic; one too frequent for that belongs to several, with a share of its frequency in each,
as "Books" does. So no topic is one label.

A topic's labels stand together in an **urn**: an array of slots, as many for a label as its
frequency asks for. A random slot of the urn is a label drawn by frequency, and a random slot of a
topic's part of the urn one by its frequency in that topic: one look-up a draw, whatever L.
"""

from __future__ import annotations

import numpy as np

_SLOTS = 8  # slots a label, on average: rare ones get 1 or 2
_HEAD = 0.08  # the documents that the most frequent label is in (EURLex-4.3K: 0.081)
_SHARE = 0.5  # of a topic's documents, those that a label may be in, roughly


class LabelUrn:
    """The drawing table of all labels.

    Attributes:
        slots: int32 [S], a label number each, about 8 slots a label.
        starts: int64 [T + 1]: topic t has slots[starts[t]:starts[t + 1]].

    Args:
        labels, topics: how many.
        per_document: mean labels of a document.
        zipf: the exponent s.
        rng: decides which label has which frequency and which topic.
    """

    def __init__(
        self,
        labels: int,
        topics: int,
        per_document: float,
        zipf: float,
        rng: np.random.Generator,
    ) -> None:
        frequency = label_frequencies(labels, per_document, zipf)
        # Entries of the urn: a label's frequency in one topic.
        copies = np.ceil(frequency * (per_document * topics / _SHARE)).astype(np.int32)
        ids = np.repeat(rng.permutation(np.arange(labels, dtype=np.int32)), copies)
        weights = np.repeat(frequency / copies, copies)
        order = rng.permutation(len(ids))
        ids, weights = ids[order], weights[order]
        counts = np.floor(np.cumsum(weights) * (_SLOTS * labels)).astype(np.int64)
        counts = np.maximum(np.diff(counts, prepend=0), 1)
        # Topic sizes fall with the square root of their number.
        sizes = np.cumsum(np.arange(1, topics + 1) ** -0.5)
        ends = np.floor(sizes / sizes[-1] * (len(ids) - topics)).astype(np.int64)
        ends += np.arange(1, topics + 1)  # one entry at least
        self.starts = np.concatenate([[0], np.cumsum(counts)[ends - 1]])
        self.slots = np.repeat(ids, counts)

    def topic_of(self, slots: np.ndarray) -> np.ndarray:
        """int64, the topics that slot numbers belong to."""
        return np.searchsorted(self.starts, slots, side="right") - 1


def label_frequencies(labels: int, per_document: float, zipf: float) -> np.ndarray:
    """float64 [L], falling: the share of each label rank in all (document, label) pairs.

    Args: as of ``LabelUrn``.
    """
    frequency = (np.arange(labels) + _mandelbrot_shift(labels, per_document, zipf)) ** -zipf
    return np.asarray(frequency / frequency.sum())


def _mandelbrot_shift(labels: int, per_document: float, zipf: float) -> float:
    """q of w(r) ∝ (r + q)^-s, by the integral of w, on a grid of 2 %."""
    shifts = np.geomspace(1, 10 * labels, 1 + int(np.log(10 * labels) / 0.02))
    # The mean of r^-s over labels, times their number, with the steps log-spaced in r.
    low, high = shifts - 0.5, shifts + labels - 0.5
    if zipf == 1:
        total = np.log(high / low)
    else:
        total = (high ** (1 - zipf) - low ** (1 - zipf)) / (1 - zipf)
    head = shifts**-zipf / total * per_document
    fits = head <= max(_HEAD, 3 * per_document / labels)
    return float(shifts[fits][0]) if fits.any() else float(shifts[-1])
