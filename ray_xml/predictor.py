"""Prediction in one process, without Ray: documents' features in, labels and scores out.

It answers as the label shards do during training and in prediction on Ray, since all search and
score with the same functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ray_xml.blend import Evidence
from ray_xml.export import is_export, load_export
from ray_xml.model import Model, model_of_run
from ray_xml.predict_documents import BLOCK, DocumentSide, Predictions
from ray_xml.predict_shard import ModelShard
from ray_xml.run_config import RunConfig
from ray_xml.sparse import Csr

__all__ = ["Predictions", "Predictor"]


class Predictor:
    """A trained model, ready to answer.

    Attributes:
        model: what it answers with.
        lexical, proxies, rows: its parts as they are searched.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.lexical = model.lexical
        self._documents, self._labels = DocumentSide(model), ModelShard(model.all_labels())
        self.proxies, self.rows = self._labels.proxies, self._labels.rows

    @staticmethod
    def load(path: str | Path) -> Predictor:
        """The best model of the run folder ``path``, or the model exported to the folder.

        Raises:
            CheckpointError: no run, no checkpoint that can predict, or a damaged one.
        """
        return Predictor(load_export(Path(path)) if is_export(Path(path)) else model_of_run(path))

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.model.config

    @property
    def num_features(self) -> int:
        return self.model.num_features

    @property
    def num_labels(self) -> int:
        return self.model.num_labels

    def encode(self, features: Csr) -> np.ndarray:
        """float32 [n, D]: document embeddings, rounded through float16 as in training."""
        return self._documents.encode(features)

    def predict(self, features: Csr, top: int = 5) -> Predictions:
        """The ``top`` best labels of each document.

        Args:
            features: [n, num_features], TF-IDF or whatever the model was trained on.

        Raises:
            DataSetError: the features have another width than the model's, are no sound rows, or
                hold values beyond what the model can work with.
            CheckpointError: the model's own numbers are beyond that.
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
        self._documents.check_width(features)
        for _, block in features.blocks(BLOCK):
            question = self._documents.ask(block, top)
            found = self._labels.search(question.embeddings, question.k, question.given)
            yield self._documents.predict(question, [found], top)

    def evidence(self, features: Csr, top: int = 0) -> Evidence:
        """The candidates of documents, at least ``top`` from each dense source, and what is known
        of them; all at once, so for blocks of documents."""
        question = self._documents.ask(features, top)
        found = self._labels.search(question.embeddings, question.k, question.given)
        return self._documents.evidence(question, [found])
