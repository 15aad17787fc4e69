"""The labels' side of prediction: a range of a trained model's labels, ready to be searched.

One range with all labels, or several whose answers are merged: where searches are exact, the
predictions are the same bit for bit, since a score depends on the document and the label alone.
"""

from __future__ import annotations

import numpy as np

from ray_xml.label_search import Found, search_indexes
from ray_xml.model import RangeModel
from ray_xml.shortlist import LabelIndex


class ModelShard:
    """Answers for the labels of one range.

    Attributes:
        proxies, rows: as they are searched.
    """

    def __init__(self, model: RangeModel) -> None:
        self._model = model
        self.proxies = self._index("proxy", model.proxies)
        self.rows = self._index("classifier", model.rows)

    def _index(self, source: str, vectors: np.ndarray) -> LabelIndex:
        config = self._model.config.shortlist.index_for(source, exact=source in self._model.exact)
        return LabelIndex(self._model.labels, vectors, config)

    def search(self, embeddings: np.ndarray, k: int, given: np.ndarray) -> Found:
        """The range's k best labels of each source, and its scores of the labels handed in.

        Args:
            embeddings: float32 [n, D], from ``DocumentSide.encode``.
            given: int32 [n, m], −1 for none; those of other ranges get zeros.
        """
        return search_indexes(
            embeddings,
            k,
            self._model.config.shortlist.sources,
            self.proxies,
            self.rows,
            both_scores=True,
            given=given,
        )

    def scores(self, embeddings: np.ndarray, given: np.ndarray) -> Found:
        """The scores of the labels handed in alone; arguments as for ``search``."""
        return search_indexes(
            embeddings, 0, (), self.proxies, self.rows, both_scores=True, given=given
        )
