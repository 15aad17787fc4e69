"""PECOS XR-Linear as its documentation trains it, defaults throughout.

Label embeddings are PIFA (positive instances' mean features), the tree is hierarchical k-means.
PECOS's loaders leave features as they are, and so does this, unless called with ``--unit``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import peer_io
import scipy.sparse
from pecos.xmc import Indexer, LabelEmbeddingFactory  # type: ignore  # own environment
from pecos.xmc.xlinear.model import XLinearModel  # type: ignore
from sklearn.preprocessing import normalize


class Pecos:
    def __init__(self, *, unit: bool) -> None:
        self.unit = unit
        self.model: Any = None
        self.threads = 1

    def train(self, data: Path, model: Path, threads: int) -> None:
        features = self._scaled(XLinearModel.load_feature_matrix(str(data / "train_X.npz")))
        labels = XLinearModel.load_label_matrix(str(data / "train_Y.npz"), for_training=True)
        embeddings = LabelEmbeddingFactory.create(labels, features, method="pifa", threads=threads)
        chain = Indexer.gen(embeddings, indexer_type="hierarchicalkmeans", threads=threads)
        XLinearModel.train(features, labels, C=chain, threads=threads).save(str(model))

    def load(self, model: Path, threads: int) -> None:
        # The faster of its two ways to load, and the one its own predict command takes.
        self.model = XLinearModel.load(str(model), is_predict_only=True)
        self.threads = threads

    def documents(self, rows: peer_io.Rows) -> scipy.sparse.csr_matrix:
        parts = (rows.values, rows.ids, rows.offsets)
        return self._scaled(scipy.sparse.csr_matrix(parts, shape=rows.shape, dtype=np.float32))

    def _scaled(self, features: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
        return normalize(features) if self.unit else features

    def predict(self, documents: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
        return self.model.predict(documents, threads=self.threads)

    def answers(self, predicted: scipy.sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        lists = []
        for a, b in zip(predicted.indptr[:-1], predicted.indptr[1:], strict=True):
            pairs = zip(predicted.indices[a:b].tolist(), predicted.data[a:b].tolist(), strict=True)
            lists.append(sorted(pairs, key=lambda pair: -pair[1]))
        return peer_io.padded(lists)


if __name__ == "__main__":
    arguments = [one for one in sys.argv[1:] if one != "--unit"]
    peer_io.main(Pecos(unit="--unit" in sys.argv), arguments)
