"""The documents' side of prediction: what is asked of the labels, and what comes of their answers.

ask      a block of documents → embeddings and the labels that the sparse channel votes for
(every ``ModelShard`` answers)
predict  the answers, merged → candidates, scores, the best of them
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from ray_xml.bags import bags_of, sum_bags
from ray_xml.blend import Evidence
from ray_xml.encoder import residual_block
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.label_search import Found
from ray_xml.lexical import Answer
from ray_xml.model import DocumentModel
from ray_xml.scoring import candidates, top_k
from ray_xml.sparse import Csr

BLOCK = 1024  # documents scored at a time: bounds the scratch memory


class Predictions(NamedTuple):
    """The best labels of n documents.

    Attributes:
        labels: int32 [n, k], best first, −1 where a document has fewer.
        scores: float32 [n, k] in [0, 1], −inf where there is no label.
    """

    labels: np.ndarray
    scores: np.ndarray


def at_least(block: Predictions, threshold: float) -> Predictions:
    """The predictions with a score of ``threshold`` or more."""
    kept = block.scores >= threshold
    labels = np.where(kept, block.labels, np.int32(-1))
    return Predictions(labels, np.where(kept, block.scores, np.float32(-np.inf)))


@dataclass(frozen=True)
class Question:
    """What the labels are asked about a block of n documents.

    Attributes:
        embeddings: float32 [n, D].
        k: labels wanted from each source.
        answer: the sparse channel's.
    """

    embeddings: np.ndarray
    k: int
    answer: Answer

    @property
    def given(self) -> np.ndarray:
        """int32 [n, m]: labels to score whether a search finds them or not, −1 for none."""
        return self.answer.votes.labels


class DocumentSide:
    """Encoder, sparse channel and score of a trained model."""

    def __init__(self, model: DocumentModel) -> None:
        self.model = model
        self._table = torch.from_numpy(model.table)
        self._block = (torch.from_numpy(model.weight), torch.from_numpy(model.bias))
        self._known = int(np.count_nonzero(model.lexical.label_counts))

    def encode(self, features: Csr) -> np.ndarray:
        """float32 [n, D]: document embeddings, rounded through float16 as in training.

        Raises:
            DataSetError: the features have another width than the model's, are no sound rows, or
                hold values beyond what the model can work with.
        """
        self.check_width(features)
        try:
            features.check("the documents")
            features.check_finite("the documents")
        except ValueError as error:
            raise DataSetError(f"{error}; check how they were made") from error
        u_nD: Tensor = sum_bags(self._table, bags_of(features))
        rounded: Any = residual_block(u_nD, *self._block).half().float().numpy()
        if not np.isfinite(rounded).all():
            raise DataSetError(
                "a document's values are too large for the model: scale them as those that it was "
                "trained on"
            )
        return np.asarray(rounded)

    def ask(self, features: Csr, top: int = 0) -> Question:
        """What is to be asked for at least ``top`` candidates from each source; all documents at
        once, so for blocks of ``BLOCK``. Errors are those of ``encode``."""
        embeddings = self.encode(features)
        # No more than there are, whatever the config asks for: lists take memory.
        k = min(max(self.model.config.shortlist.listed, top), max(1, self._known))
        return Question(embeddings, k, self.model.lexical.ask(features))

    def evidence(self, question: Question, found: Sequence[Found]) -> Evidence:
        """All that is known of the candidates; ``found`` has one answer a label range."""
        merged = found[0] if len(found) == 1 else Found.merge(list(found), question.k)
        return candidates(merged, question.answer)

    def predict(self, question: Question, found: Sequence[Found], top: int) -> Predictions:
        """The ``top`` best labels of each document.

        Raises:
            CheckpointError: the model's own numbers are too large to be worked with.
        """
        labels, best = self.best(question, found, top)
        return Predictions(labels, np.where(labels < 0, -np.inf, expit(best)).astype(np.float32))

    def best(
        self, question: Question, found: Sequence[Found], top: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(labels int32 [n, top], log-odds float32 [n, top]), best first, −1 and −∞ where a
        document has fewer; errors are those of ``predict``."""
        evidence = self.evidence(question, found)
        log_odds = self.model.log_odds(evidence)
        if np.isnan(log_odds).any():
            raise CheckpointError(
                "the model gives no score: its numbers are too large; use another checkpoint, or "
                "export the model again"
            )
        return top_k(evidence.labels, log_odds, top)

    def check_width(self, features: Csr) -> None:
        """Raises DataSetError if the features have another width than the model's."""
        if features.num_columns != self.model.num_features:
            raise DataSetError(
                f"the documents have {features.num_columns:,} features, the model was trained on "
                f"{self.model.num_features:,}; prepare them with the same vocabulary"
            )
