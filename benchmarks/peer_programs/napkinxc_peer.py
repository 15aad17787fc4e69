"""napkinXC's probabilistic label trees (PLT), defaults throughout, but for a fixed seed.

It scales documents to unit length by itself (``norm``), in training and prediction alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peer_io
import scipy.sparse
from napkinxc.models import PLT  # type: ignore  # own environment


class NapkinXc:
    def __init__(self) -> None:
        self.model: Any = None

    def train(self, data: Path, model: Path, threads: int) -> None:
        features, labels = (
            self.documents(peer_io.read_rows(data / f"{name}.npz"))
            for name in ("train_X", "train_Y")
        )
        # It saves while it trains.
        PLT(str(model), threads=threads, seed=0).fit(features, labels)

    def load(self, model: Path, threads: int) -> None:
        self.model = PLT(str(model), threads=threads)
        self.model.load()

    def documents(self, rows: peer_io.Rows) -> scipy.sparse.csr_matrix:
        return scipy.sparse.csr_matrix((rows.values, rows.ids, rows.offsets), shape=rows.shape)

    def predict(self, documents: scipy.sparse.csr_matrix) -> list[list[tuple[int, float]]]:
        predicted: list[list[tuple[int, float]]] = self.model.predict_proba(
            documents, top_k=peer_io.TOP
        )
        return predicted

    def answers(self, predicted: list[list[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
        return peer_io.padded(predicted)


if __name__ == "__main__":
    peer_io.main(NapkinXc())
