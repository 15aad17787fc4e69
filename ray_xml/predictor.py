"""Prediction in one process, without Ray: texts or features in, labels and scores out.

    predictor = Predictor.load("models/posts")
    predictor.predict(["How do I sort a list?"], top_k=5)

It answers as the label shards do during training and in prediction on Ray, since all search and
score with the same functions. A predictor does not change once it is loaded, so threads may share
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from ray_xml.blend import Evidence
from ray_xml.explain import Explanation
from ray_xml.export import is_export, load_export
from ray_xml.model import Model, model_of_run
from ray_xml.predict_documents import BLOCK, Predictions
from ray_xml.predict_shard import ModelShard
from ray_xml.sparse import Csr
from ray_xml.tagger import Tag, Tagger

__all__ = ["Explanation", "Predictions", "Predictor", "Tag"]


class Predictor(Tagger):
    """A trained model, ready to answer.

    Attributes:
        model: what it answers with.
        lexical, proxies, rows: its parts as they are searched.
    """

    model: Model

    def __init__(self, model: Model, folder: Path | None = None) -> None:
        """
        Args:
            folder: where the model is from, which texts and names need.
        """
        labels = ModelShard(model.all_labels())
        super().__init__(model, labels, folder)
        self.lexical = model.lexical
        self.proxies, self.rows = labels.proxies, labels.rows

    @staticmethod
    def load(path: str | Path) -> Predictor:
        """The best model of the run folder ``path``, or the model exported to the folder.

        Raises:
            CheckpointError: no run, no checkpoint that can predict, or a damaged one.
        """
        folder = Path(path)
        model = load_export(folder) if is_export(folder) else model_of_run(folder)
        return Predictor(model, folder)

    def encode(self, features: Csr) -> np.ndarray:
        """float32 [n, D]: document embeddings, rounded through float16 as in training."""
        return self._documents.encode(features)

    @overload
    def predict(self, documents: Csr, top: int = 5) -> Predictions: ...

    @overload
    def predict(
        self,
        documents: Sequence[str],
        *,
        top_k: int = 5,
        embeddings: np.ndarray | None = None,
    ) -> list[list[Tag]]: ...

    def predict(
        self,
        documents: Csr | Sequence[str],
        top: int = 5,
        *,
        top_k: int | None = None,
        embeddings: np.ndarray | None = None,
    ) -> Predictions | list[list[Tag]]:
        """The best labels of each document: ``predict_features`` of rows, ``tag`` of texts."""
        if isinstance(documents, Csr):
            if embeddings is not None:
                raise TypeError("rows of features have their embeddings in them already")
            return self.predict_features(documents, top)
        return self.tag(documents, top if top_k is None else top_k, embeddings)

    def predict_features(self, features: Csr, top: int = 5) -> Predictions:
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
            question, found = self._ask(block, top)
            yield self._documents.predict(question, [found], top)

    def evidence(self, features: Csr, top: int = 0) -> Evidence:
        """The candidates of documents, at least ``top`` from each dense source, and what is known
        of them; all at once, so for blocks of documents."""
        question, found = self._ask(features, top)
        return self._documents.evidence(question, [found])
