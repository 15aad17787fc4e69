"""Labels in words for texts, and the reasons for them, whoever holds the labels.

The documents' side is in this process. The labels may be too (``predictor.Predictor``), or in
others (``cluster.serve_model``): whoever answers ``Labels`` gives the same tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from ray_xml.errors import DataSetError
from ray_xml.explain import Explanation, Labels, Term, contributions, explain
from ray_xml.label_search import Found
from ray_xml.model import DocumentModel
from ray_xml.model_words import TrainDocuments, label_names_of, train_documents_of, vectorizer_of
from ray_xml.predict_documents import BLOCK, DocumentSide, Question
from ray_xml.run_config import RunConfig
from ray_xml.sparse import Csr
from ray_xml.text import Vectorizer


class Tag(NamedTuple):
    """A predicted label.

    Attributes:
        label: its number; name: None where labels have no names.
        probability: that it is right (see ``probability``); the score where nothing was fitted.
        score: in [0, 1], as in ``Predictions``.
    """

    label: int
    name: str | None
    probability: float
    score: float


class Tagger:
    """A trained model, ready to name the labels of texts.

    Attributes:
        model: its documents' side.
    """

    def __init__(self, model: DocumentModel, labels: Labels, folder: Path | None = None) -> None:
        """
        Args:
            labels: whoever searches them.
            folder: where the model is from, which texts and names need.
        """
        self.model, self._folder = model, folder
        self._documents, self._labels = DocumentSide(model), labels

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

    def tag(
        self, texts: Sequence[str], top_k: int = 5, embeddings: np.ndarray | None = None
    ) -> list[list[Tag]]:
        """The ``top_k`` best labels of each text in words, most probable first; fewer where there
        are no more candidates, none of a text without a known term.

        Args:
            embeddings: float [texts, d], of a model that was trained with them (see ``embedding``).

        Raises:
            DataSetError: the model was not trained on texts, or its vectoriser is damaged;
                embeddings are missing, or are none of this model's.
            TypeError: ``texts`` is a text, not several.
        """
        if isinstance(texts, str):
            raise TypeError('texts are a list: ["some text"]')
        features, names = self.vectorizer.transform(texts, embeddings), self.names
        found: list[list[Tag]] = []
        for _, block in features.blocks(BLOCK):
            question, answer = self._ask(block, top_k)
            labels, log_odds = self._documents.best(question, [answer], top_k)
            scores, p = expit(log_odds), self.model.probability.of(log_odds)
            for row in zip(labels.tolist(), p.tolist(), scores.tolist(), strict=True):
                found.append(
                    [
                        Tag(label, None if names is None else names[label], probability, score)
                        for label, probability, score in zip(*row, strict=True)
                        if label >= 0
                    ]
                )
        return found

    def explain(
        self,
        text: str,
        label: int | str,
        *,
        most: int = 10,
        embedding: np.ndarray | None = None,
    ) -> Explanation:
        """What speaks for and against a label, be it predicted or not.

        Args:
            label: its number or its name.
            most: terms and training documents to tell at most, each.
            embedding: float [d], the text's, of a model that was trained with them.

        Raises:
            DataSetError: no such label, or one without training documents; the model was not
                trained on texts; the data set of a run is not there any more.
            CheckpointError: an exported model does not say which documents it was trained on.
        """
        number = self._number(label) if isinstance(label, str) else label
        name = None
        if self.names is not None and 0 <= number < len(self.names):
            name = self.names[number]
        return explain(
            self._documents,
            self._labels,
            self.vectorizer.transform([text], None if embedding is None else embedding[None]),
            self.vectorizer.terms(text),
            self.vectorizer.num_words,
            number,
            name,
            self._trained_on,
            most=most,
        )

    def reasons(self, text: str, labels: Sequence[int], *, most: int = 10) -> list[list[Term]]:
        """The terms that ``explain`` tells, of several labels at once, which ``tag`` gave."""
        row, named = self.vectorizer.transform([text]), self.vectorizer.terms(text)
        words = self.vectorizer.num_words
        return contributions(self._documents, self._labels, row, named, words, labels, most=most)[1]

    @cached_property
    def vectorizer(self) -> Vectorizer:
        """What makes features of texts; errors as for ``tag``."""
        return vectorizer_of(self._source(), self.config.data, self.num_features)

    @cached_property
    def names(self) -> list[str] | None:
        """The label names by number, if there are any."""
        return None if self._folder is None else label_names_of(self._folder, self.config.data)

    @cached_property
    def _trained_on(self) -> TrainDocuments:
        added = sum(one.documents for one in self.model.added)
        fitted = self.model.neighbors.labels.num_rows - added
        return train_documents_of(self._source(), self.config, fitted, added)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names or ())}

    def _number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            what = "there is no such label" if self.names else "the labels have no names"
            raise DataSetError(f"label {name!r}: {what}; give a label's name or number")
        return number

    def _source(self) -> Path:
        if self._folder is None:
            raise DataSetError("the predictor was made of a model alone: load it from its folder")
        return self._folder

    def _ask(self, features: Csr, top: int) -> tuple[Question, Found]:
        question = self._documents.ask(features, top)
        return question, self._labels.search(question.embeddings, question.k, question.given)
