"""ray_xml's prediction, without Ray; training is the command ``ray-xml train``."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import peer_io
import torch

from ray_xml.predictor import Predictions, Predictor
from ray_xml.sparse import Csr


class RayXml:
    def __init__(self) -> None:
        self.predictor: Predictor | None = None

    def train(self, data: Path, model: Path, threads: int) -> None:
        raise SystemExit("ray_xml is trained by `ray-xml train`")

    def load(self, model: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        faiss.omp_set_num_threads(threads)
        self.predictor = Predictor.load(model)

    def documents(self, rows: peer_io.Rows) -> Csr:
        values = rows.values.astype(np.float32, copy=False)
        return Csr(rows.offsets.astype(np.int64), rows.ids, values, rows.shape[1])

    def predict(self, documents: Csr) -> Predictions:
        assert self.predictor is not None
        return self.predictor.predict(documents, peer_io.TOP)

    def answers(self, predicted: Predictions) -> tuple[np.ndarray, np.ndarray]:
        return predicted.labels, predicted.scores


if __name__ == "__main__":
    peer_io.main(RayXml())
