"""Prediction in one process, without Ray: documents' features in, labels and scores out.

It answers as the label shards do during training, since both search and score with the same
functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from ray_xml.bags import bags_of, sum_bags
from ray_xml.blend import Evidence
from ray_xml.encoder import residual_block
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.export import is_export, load_export
from ray_xml.label_search import search_indexes
from ray_xml.model import Model, model_of_run
from ray_xml.run_config import RunConfig
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
    """A trained model, ready to answer.

    Attributes:
        model: what it answers with.
        lexical, proxies, rows: its parts as they are searched.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.lexical = model.lexical
        self._table = torch.from_numpy(model.table)
        self._block = (torch.from_numpy(model.weight), torch.from_numpy(model.bias))
        self.proxies = self._index("proxy", model.proxies)
        self.rows = self._index("classifier", model.rows)

    def _index(self, source: str, vectors: np.ndarray) -> LabelIndex:
        shortlist = self.model.config.shortlist
        config = shortlist.index_for(source, exact=source in self.model.exact)
        return LabelIndex(self.model.labels, vectors, config)

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
        self._check(features)
        u_nD: Tensor = sum_bags(self._table, bags_of(features))
        rounded: Any = residual_block(u_nD, *self._block).half().float().numpy()
        if not np.isfinite(rounded).all():
            raise DataSetError(
                "a document's values are too large for the model: scale them as those that it was "
                "trained on"
            )
        return np.asarray(rounded)

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
        self._check_width(features)
        for _, block in features.blocks(_BLOCK):
            yield self._predict(block, top)

    def evidence(self, features: Csr, top: int = 0) -> Evidence:
        """The candidates of documents, at least ``top`` from each dense source, and what is known
        of them; all at once, so for blocks of documents."""
        shortlist = self.config.shortlist
        z_nD = self.encode(features)
        answer = self.lexical.ask(features)
        found = search_indexes(
            z_nD,
            # No more than there are, whatever the config asks for: lists take memory.
            min(max(shortlist.listed, top), max(1, len(self.model.labels))),
            shortlist.sources,
            self.proxies,
            self.rows,
            both_scores=True,
            given=answer.votes.labels,
        )
        return candidates(found, answer)

    def _predict(self, features: Csr, top: int) -> Predictions:
        evidence = self.evidence(features, top)
        log_odds = self.model.blend.log_odds(evidence, self.lexical.label_counts)
        if np.isnan(log_odds).any():
            raise CheckpointError(
                "the model gives no score: its numbers are too large; use another checkpoint, or "
                "export the model again"
            )
        labels, best = top_k(evidence.labels, log_odds, top)
        return Predictions(labels, np.where(labels < 0, -np.inf, expit(best)).astype(np.float32))

    def _check(self, features: Csr) -> None:
        self._check_width(features)
        try:
            features.check("the documents")
            features.check_finite("the documents")
        except ValueError as error:
            raise DataSetError(f"{error}; check how they were made") from error

    def _check_width(self, features: Csr) -> None:
        if features.num_columns != self.num_features:
            raise DataSetError(
                f"the documents have {features.num_columns:,} features, the model was trained on "
                f"{self.num_features:,}; prepare them with the same vocabulary"
            )
