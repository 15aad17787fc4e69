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

from ray_xml.postings import Postings, spread
from ray_xml.sparse import Csr
from ray_xml.top_entries import heaviest

_LABELS = 16384  # labels counted at a time: bounds the scratch memory
_CELLS = 2_000_000  # scores unfolded at a time, likewise


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
            heaviest((by_label[first : first + _LABELS] @ rows).tocsr(), terms)
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
        self._tables = [Postings(one.T.tocsr()) for one in (centroids, associations)]

    def scores(self, queries: Csr, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How well documents fit their candidate labels.

        Args:
            queries: [n, V], cut as the indexed documents were.
            labels: int32 [n, m], −1 for none.

        Returns:
            (centroid, association), float32 [n, m] each, 0 where there is no label.
        """
        wanted = np.maximum(labels, 0).astype(np.int64)
        if queries.num_rows == 1:
            found = [table.product(queries)[wanted] for table in self._tables]
        else:
            step = max(1, _CELLS // max(1, self._tables[0].width))
            parts = [slice(first, first + step) for first in range(0, len(labels), step)]
            found = [np.zeros(labels.shape, np.float32) for _ in self._tables]

            def score(part: slice) -> None:
                block = queries.slice(part.start, min(part.stop, queries.num_rows))
                for out, table in zip(found, self._tables, strict=True):
                    unfolded = table.products(block).toarray()
                    out[part] = np.take_along_axis(unfolded, wanted[part], 1)

            spread(score, parts)
        for out in found:
            out[labels < 0] = 0.0
        return found[0], found[1]
