"""What predictions are compared with: documents' labels, but for pairs that count neither way.

A data set may name (document, label) pairs to be left out of evaluation, as where a label is the
document itself (``filter_labels_*.txt`` of the Extreme Classification Repository). Such a pair is
no prediction, the next best takes its place, and no truth. A document that loses all its labels
stays a document. So does the repository's own evaluation.

Shape suffixes: B documents, K positions of a ranking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ray_xml.metrics import hits
from ray_xml.sparse import Csr, Rows
from ray_xml.store import Split


@dataclass(frozen=True)
class Truth:
    """Labels of documents, and the pairs that do not count.

    Attributes:
        given: [N, L], the labels with those pairs.
        pairs: [N, L], or None where all count.
    """

    given: Rows
    pairs: Rows | None = None

    @staticmethod
    def of(split: Split, *, filtered: bool = True) -> Truth:
        """A split's, with its filter if it has one and ``filtered``."""
        return Truth(split.labels, split.filtered if filtered else None)

    def slice(self, start: int, stop: int) -> Truth:
        """Documents ``start:stop``."""
        pairs = None if self.pairs is None else self.pairs.slice(start, stop)
        return Truth(self.given.slice(start, stop), pairs)

    def take(self, rows: np.ndarray) -> Truth:
        """The given documents, in the given order."""
        pairs = None if self.pairs is None else self.pairs.take(rows)
        return Truth(self.given.take(rows), pairs)

    @property
    def labels(self) -> Csr:
        """[N, L]: those that count, made anew with each call; for blocks of documents."""
        rows = self.given.slice(0, self.given.num_rows).packed()
        if self.pairs is None:
            return rows
        pairs = self.pairs.slice(0, rows.num_rows).packed()
        width = rows.num_columns
        keys = rows.row_of_entry() * width + rows.ids
        counts = ~np.isin(keys, pairs.row_of_entry() * width + pairs.ids)
        before = np.concatenate([[0], np.cumsum(counts)])
        return replace(rows, offsets=before[rows.offsets], ids=rows.ids[counts])

    def asked(self, k: int) -> int:
        """How many predictions of each document leave ``k`` that count."""
        if self.pairs is None:
            return k
        return k + int(self.pairs.slice(0, self.pairs.num_rows).counts.max(initial=0))

    def cleared(self, labels_BK: np.ndarray) -> np.ndarray:
        """The labels with −1 in place of those that do not count; ids as for ``metrics.hits``."""
        if self.pairs is None:
            return labels_BK
        left_out = hits(labels_BK, self.pairs.slice(0, self.pairs.num_rows))
        return np.where(left_out, np.int32(-1), labels_BK)

    def best(
        self, labels_BK: np.ndarray, scores_BK: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The first ``k`` predictions that count.

        Args:
            labels_BK: int32, best first, −1 for none, at least ``asked(k)`` positions.
            scores_BK: float32.

        Returns:
            (labels int32 [B, k], scores float32 [B, k]), −1 and −∞ where there is none.
        """
        if self.pairs is None:
            return labels_BK[:, :k], scores_BK[:, :k]
        labels = self.cleared(labels_BK)
        order = np.argsort(labels < 0, axis=1, kind="stable")[:, :k]
        labels = np.take_along_axis(labels, order, 1)
        scores = np.take_along_axis(scores_BK, order, 1)
        return labels, np.where(labels < 0, np.float32(-np.inf), scores)
