"""Prediction in one process, without Ray: documents' features in, labels and scores out.

It answers as the label shards do during training, since both search and blend with the same
functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ray_xml import checkpoint
from ray_xml.bags import bags_of, sum_bags
from ray_xml.encoder import residual_block
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.label_search import search_indexes
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.scoring import candidates, top_k
from ray_xml.shortlist import LabelIndex
from ray_xml.sparse import Csr

_BLOCK = 1024  # documents scored at a time: bounds the scratch memory


class Predictions(NamedTuple):
    """The best labels of n documents.

    Attributes:
        labels: int32 [n, k], best first, −1 where a document has fewer.
        scores: float32 [n, k] in [0, 1], −inf where there is no label.
    """

    labels: np.ndarray
    scores: np.ndarray


class Predictor:
    """A trained model in memory.

    Attributes:
        num_features, num_labels: the model's widths.
        config: the run's config.
        manifest: the checkpoint's manifest.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        manifest = checkpoint.read_manifest(folder)
        if not manifest["with_proxies"]:
            raise CheckpointError(f"{folder}: has no proxies yet, so it cannot predict")
        self.config, self.manifest = config, manifest
        self.num_features: int = manifest["num_features"]
        self.num_labels: int = manifest["num_labels"]
        self.beta = config.training.beta if manifest["beta"] is None else manifest["beta"]
        dim: int = manifest["dim"]

        def load(kind: str, name: str, size: int, axis: int = 0) -> np.ndarray:
            return checkpoint.load_range(folder, kind, name, (0, size), axis=axis)

        self._table = torch.from_numpy(load("tokens", "table", dim, 1))
        weight = torch.from_numpy(load("encoder", "normalised_weight", dim))
        self._block = (weight, torch.from_numpy(load("encoder", "bias", dim)))
        proxies = load("proxies", "proxies", self.num_labels)
        # Labels without a training document have a zero proxy and are never predicted.
        known = np.flatnonzero(proxies.any(1)).astype(np.int32)
        self._proxies = LabelIndex(known, proxies[known])
        del proxies
        rows = np.concatenate(
            [
                load("classifier", "weight", self.num_labels)[known],
                load("classifier", "bias", self.num_labels)[known, None],
            ],
            axis=1,
        )
        self._rows = LabelIndex(known, rows)

    @staticmethod
    def load(path: str | Path) -> Predictor:
        """The best model of the run folder ``path``.

        Raises:
            CheckpointError: no run, no checkpoint that can predict, or a damaged one.
        """
        run = RunFolder(path)
        return Predictor(run.model(), run.config())

    def encode(self, features: Csr) -> np.ndarray:
        """float32 [n, D]: document embeddings, rounded through float16 as in training."""
        self._check(features)
        u_nD: Tensor = sum_bags(self._table, bags_of(features))
        rounded: Any = residual_block(u_nD, *self._block).half().float().numpy()
        return np.asarray(rounded)

    def predict(self, features: Csr, top: int = 5) -> Predictions:
        """The ``top`` best labels of each document.

        Args:
            features: [n, num_features], TF-IDF or whatever the model was trained on.

        Raises:
            DataSetError: the features have another width than the model's.
        """
        parts = list(self.predict_blocks(features, top))
        if not parts:
            return Predictions(np.zeros((0, top), np.int32), np.zeros((0, top), np.float32))
        return Predictions(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def predict_blocks(self, features: Csr, top: int = 5) -> Iterator[Predictions]:
        """As ``predict``, block by block in order, for inputs of any length."""
        shortlist = self.config.shortlist
        size = max(shortlist.listed, top)
        for _, block in features.blocks(_BLOCK):
            z_nD = self.encode(block)
            found = search_indexes(
                z_nD, size, shortlist.sources, self._proxies, self._rows, both_scores=True
            )
            yield Predictions(*top_k(*candidates(found), self.beta, top))

    def _check(self, features: Csr) -> None:
        if features.num_columns != self.num_features:
            raise DataSetError(
                f"the documents have {features.num_columns:,} features, the model was trained on "
                f"{self.num_features:,}; prepare them with the same vocabulary"
            )
