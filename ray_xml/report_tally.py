"""One pass over a split with a model: everything that a report says of its predictions, as sums.

Nothing here has the size documents × labels: a block of documents is predicted, added up and
forgotten. Per label there are five counts, per document a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ray_xml.calibration import ScoreBins
from ray_xml.document_scores import DocumentScores
from ray_xml.evaluation import check_labels, labelled
from ray_xml.metrics import hits
from ray_xml.predictor import Predictions, Predictor
from ray_xml.run_data import metric_sums
from ray_xml.run_sections import DataSetConfig
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.truth import Truth

CHOSEN = 0.5  # a label whose score is at least this is taken to be said of a document
_PENDING = 1 << 20  # confusions collected before they are counted


@dataclass(frozen=True)
class Tally:
    """What a model's ``top`` best labels came to on a split's documents.

    Attributes:
        top: predictions of a document that were looked at.
        metrics: in percent, see ``metrics.MetricSums.result``.
        documents: numerators and denominators of each document.
        true, found, listed, chosen, chosen_right: int64 [L], documents: that have the label; of
            those, that have it among the top; that were given it among the top; that were given it
            there with a score of at least ``CHOSEN``; and rightly so.
        every, first: scores of all predictions, and of each document's best.
        first_right: bool [N]; first_score: float32 [N], −inf where nothing is predicted.
        confusions: int64 [n, 3], (label given, label missed, documents), the most frequent first:
            both within a document's |y| best, see ``confused``.
    """

    top: int
    metrics: dict[str, float]
    documents: DocumentScores
    true: np.ndarray
    found: np.ndarray
    listed: np.ndarray
    chosen: np.ndarray
    chosen_right: np.ndarray
    every: ScoreBins
    first: ScoreBins
    first_right: np.ndarray
    first_score: np.ndarray
    confusions: np.ndarray


def tally(
    predictor: Predictor,
    data: DataSet,
    split: str,
    expected: DataSetConfig,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tally:
    """Predicts a split, and adds up.

    Args:
        expected: whose propensities count.

    Raises:
        DataSetError: no such split, one without labels, or of other widths than the model's.
    """
    documents = labelled(data, split)
    check_labels(data, predictor)
    sums = metric_sums(data, expected)
    top, width = max(sums.ks), data.meta.num_labels
    counts = np.zeros((4, width), np.int64)
    every, first = ScoreBins(), ScoreBins()
    parts: list[DocumentScores] = []
    best_right, best_score = [], []
    confusions = _Confusions(width)
    done = 0
    whole = Truth.of(documents)
    true = np.zeros(width, np.int64)
    for found in predictor.predict_blocks(documents.features, whole.asked(top)):
        own = whole.slice(done, done + len(found.labels))
        part, truth = Predictions(*own.best(*found, top)), own.labels
        true += np.bincount(truth.ids, minlength=width)
        right, given = hits(part.labels, truth), part.labels >= 0
        table = sums.contributions(part.labels, truth)
        sums.add(table, truth)
        parts.append(DocumentScores.of(sums.ks, table))
        sure = part.scores >= CHOSEN
        for row, some in enumerate((right, given, sure, sure & right)):
            counts[row] += np.bincount(part.labels[some], minlength=width)
        every.add(part.scores[given], right[given])
        first.add(part.scores[given[:, 0], 0], right[given[:, 0], 0])
        best_right.append(right[:, 0])
        best_score.append(part.scores[:, 0])
        confusions.add(confused(part.labels, right, truth))
        done += len(part.labels)
        progress(done, documents.num_documents)
    return Tally(
        top=top,
        metrics=sums.result(),
        documents=DocumentScores.joined(parts),
        true=true,
        found=counts[0],
        listed=counts[1],
        chosen=counts[2],
        chosen_right=counts[3],
        every=every,
        first=first,
        first_right=np.concatenate(best_right),
        first_score=np.concatenate(best_score),
        confusions=confusions.counted(),
    )


def confused(labels_BK: np.ndarray, right_BK: np.ndarray, truth: Csr) -> np.ndarray:
    """Pairs of labels where one stands in the other's place, int64 [n, 2]: (given, missed).

    A document's predictions are cut off after as many as it has true labels (at most K): whatever
    is wrong among them keeps out a label that is missed. Each wrong one is paired with each
    missed one.
    """
    rows = truth.packed()
    cut = np.minimum(rows.counts, labels_BK.shape[1])
    within = (np.arange(labels_BK.shape[1]) < cut[:, None]) & (labels_BK >= 0)
    kept = np.arange(rows.num_rows)[:, None] * rows.num_columns + labels_BK
    true_rows = rows.row_of_entry()
    missed = ~np.isin(true_rows * rows.num_columns + rows.ids, kept[within & right_BK])
    wrong_rows, places = np.nonzero(within & ~right_BK)
    # Missed entries lie document by document, so those of a document are one stretch.
    entries = rows.ids[missed].astype(np.int64)
    of_row = np.bincount(true_rows[missed], minlength=rows.num_rows)
    times = of_row[wrong_rows]
    starts = (np.cumsum(of_row) - of_row)[wrong_rows]
    steps = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    given = np.repeat(labels_BK[wrong_rows, places].astype(np.int64), times)
    return np.stack([given, entries[np.repeat(starts, times) + steps]], 1)


class _Confusions:
    """Counts pairs of labels; holds each that occurs once."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._pending: list[np.ndarray] = []
        self._waiting = 0

    def add(self, pairs: np.ndarray) -> None:
        self._pending.append(pairs[:, 0] * self._width + pairs[:, 1])
        self._waiting += len(pairs)
        if self._waiting > _PENDING:
            self._count()

    def counted(self) -> np.ndarray:
        """int64 [n, 3], the most frequent first, ties by lower labels."""
        self._count()
        order = np.argsort(-self._counts, kind="stable")
        keys = self._keys[order]
        return np.stack([keys // self._width, keys % self._width, self._counts[order]], 1)

    def _count(self) -> None:
        ones = np.ones(self._waiting, np.int64)
        keys = np.concatenate([self._keys, *self._pending])
        counts = np.concatenate([self._counts, ones])
        self._keys, place = np.unique(keys, return_inverse=True)
        self._counts = np.bincount(place, counts, len(self._keys)).astype(np.int64)
        self._pending, self._waiting = [], 0
