"""omikuji: its defaults (Parabel-like), or with ``--bonsai`` its README's Bonsai-like setting.

Its Python interface takes one document a call, so "batch" is a loop here. It reads the training
file itself, and scales documents to unit length and adds a bias by itself, in training and
prediction alike.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import omikuji  # type: ignore  # is installed in this program's own environment alone
import peer_io

Pairs = list[tuple[int, float]]


class Omikuji:
    def __init__(self, *, bonsai: bool) -> None:
        self.bonsai = bonsai
        self.model: Any = None

    def train(self, data: Path, model: Path, threads: int) -> None:
        settings = omikuji.Model.default_hyper_param()
        if self.bonsai:
            settings.cluster_balanced = False
            settings.cluster_k = 100
            settings.max_depth = 3
        text = str(data / "train.txt")
        omikuji.Model.train_on_data(text, settings, threads).save(str(model))

    def load(self, model: Path, threads: int) -> None:
        self.model = omikuji.Model.load(str(model))
        self.model.init_prediction_thread_pool(threads)

    def documents(self, rows: peer_io.Rows) -> list[Pairs]:
        bounds = rows.offsets.tolist()
        pairs = list(zip(rows.ids.tolist(), rows.values.tolist(), strict=True))
        return [pairs[a:b] for a, b in itertools.pairwise(bounds)]

    def predict(self, documents: list[Pairs]) -> list[Pairs]:
        return [self.model.predict(document) for document in documents]

    def answers(self, predicted: list[Pairs]) -> tuple[np.ndarray, np.ndarray]:
        return peer_io.padded(predicted)


if __name__ == "__main__":
    arguments = [one for one in sys.argv[1:] if one != "--bonsai"]
    peer_io.main(Omikuji(bonsai="--bonsai" in sys.argv), arguments)
