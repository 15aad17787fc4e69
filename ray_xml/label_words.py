"""What features say of labels, counted rather than trained.

c(t, l) is the total weight of feature t in the documents of label l. Two readings of it tell how
well a document x fits a label:

    centroid      cosine of x and the label's column, Σ_t x_t c(t, l) / ‖c(·, l)‖
    association   Σ_t x_t c(t, l) / Σ_i x_ti, where c / Σ_i x_ti is the share of the feature's
                  weight that lies in the label's documents, an estimate of p(l | t)

The first favours labels whose documents look like this one as a whole, the second labels that a
single telling word points to. Columns are cut to the heaviest features of each label.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from ray_xml.neighbors import top_entries
from ray_xml.sparse import Csr

_LABELS = 16384  # labels counted at a time: bounds the scratch memory
_CELLS = 4_000_000  # scores unfolded at a time, likewise


class LabelWords:
    """The counts of one set of documents with known labels."""

    def __init__(self, documents: Csr, labels: Csr, terms: int) -> None:
        """
        Args:
            documents: [N, V], as ``neighbors.cut`` gives them.
            labels: [N, L] their labels.
            terms: features kept of each label, the heaviest.
        """
        rows = documents.to_scipy()
        by_label = labels.to_scipy().T.tocsr()
        parts = [
            _heaviest((by_label[first : first + _LABELS] @ rows).tocsr(), terms)
            for first in range(0, by_label.shape[0], _LABELS)
        ]
        counts = scipy.sparse.vstack(parts, format="csr", dtype=np.float32)
        totals = np.asarray(rows.sum(0), np.float64).ravel()
        share = (1.0 / np.maximum(totals, 1e-12)).astype(np.float32)
        lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(1))).ravel()
        scale = (1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)
        centroids, associations = counts, counts.copy()
        associations.data = counts.data * share[counts.indices]
        centroids.data = counts.data * np.repeat(scale, np.diff(counts.indptr))
        self._centroids = centroids.T.tocsr()
        self._associations = associations.T.tocsr()

    def scores(
        self, queries: scipy.sparse.csr_matrix, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How well documents fit their candidate labels.

        Args:
            queries: float32 [n, V], cut as the indexed documents were.
            labels: int32 [n, m], −1 for none.

        Returns:
            (centroid, association), float32 [n, m] each, 0 where there is no label.
        """
        centroid = np.zeros(labels.shape, np.float32)
        association = np.zeros(labels.shape, np.float32)
        step = max(1, _CELLS // max(1, self._centroids.shape[1]))
        for first in range(0, len(labels), step):
            part = slice(first, first + step)
            wanted = np.maximum(labels[part], 0).astype(np.int64)
            for out, table in ((centroid, self._centroids), (association, self._associations)):
                unfolded = (queries[part] @ table).toarray()
                out[part] = np.take_along_axis(unfolded, wanted, 1)
        none = labels < 0
        centroid[none] = association[none] = 0.0
        return centroid, association


def _heaviest(matrix: scipy.sparse.csr_matrix, terms: int) -> scipy.sparse.csr_matrix:
    """Each row cut to its largest entries."""
    places, values = top_entries(matrix, terms, places=True)
    kept = np.zeros(matrix.nnz, bool)
    kept[places[values > 0]] = True
    ends = np.concatenate([[0], np.cumsum(kept)])
    return scipy.sparse.csr_matrix(
        (matrix.data[kept], matrix.indices[kept], ends[matrix.indptr]), shape=matrix.shape
    )
