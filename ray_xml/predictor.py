"""Prediction in one process, without Ray: texts or features in, labels and scores out.

    predictor = Predictor.load("models/posts")
    predictor.predict(["How do I sort a list?"], top_k=5)

It answers as the label shards do during training and in prediction on Ray, since all search and
score with the same functions. A predictor does not change once it is loaded, so threads may share
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from scipy.special import expit

from ray_xml.blend import Evidence
from ray_xml.errors import DataSetError
from ray_xml.explain import Explanation, explain
from ray_xml.export import is_export, load_export
from ray_xml.label_search import Found
from ray_xml.model import Model, model_of_run
from ray_xml.model_words import TrainDocuments, label_names_of, train_documents_of, vectorizer_of
from ray_xml.predict_documents import BLOCK, DocumentSide, Predictions, Question
from ray_xml.predict_shard import ModelShard
from ray_xml.run_config import RunConfig
from ray_xml.sparse import Csr
from ray_xml.text import Vectorizer

__all__ = ["Explanation", "Predictions", "Predictor", "Tag"]


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


class Predictor:
    """A trained model, ready to answer.

    Attributes:
        model: what it answers with.
        lexical, proxies, rows: its parts as they are searched.
    """

    def __init__(self, model: Model, folder: Path | None = None) -> None:
        """
        Args:
            folder: where the model is from, which texts and names need.
        """
        self.model, self._folder = model, folder
        self.lexical = model.lexical
        self._documents, self._labels = DocumentSide(model), ModelShard(model.all_labels())
        self.proxies, self.rows = self._labels.proxies, self._labels.rows

    @staticmethod
    def load(path: str | Path) -> Predictor:
        """The best model of the run folder ``path``, or the model exported to the folder.

        Raises:
            CheckpointError: no run, no checkpoint that can predict, or a damaged one.
        """
        folder = Path(path)
        model = load_export(folder) if is_export(folder) else model_of_run(folder)
        return Predictor(model, folder)

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

    @overload
    def predict(self, documents: Csr, top: int = 5) -> Predictions: ...

    @overload
    def predict(self, documents: Sequence[str], *, top_k: int = 5) -> list[list[Tag]]: ...

    def predict(
        self, documents: Csr | Sequence[str], top: int = 5, *, top_k: int | None = None
    ) -> Predictions | list[list[Tag]]:
        """The best labels of each document: ``predict_features`` of rows, ``tag`` of texts."""
        if isinstance(documents, Csr):
            return self.predict_features(documents, top)
        return self.tag(documents, top if top_k is None else top_k)

    def tag(self, texts: Sequence[str], top_k: int = 5) -> list[list[Tag]]:
        """The ``top_k`` best labels of each text in words, most probable first; fewer where there
        are no more candidates, none of a text without a known term.

        Raises:
            DataSetError: the model was not trained on texts, or its vectoriser is damaged.
            TypeError: ``texts`` is a text, not several.
        """
        if isinstance(texts, str):
            raise TypeError('texts are a list: ["some text"]')
        features, names = self.vectorizer.transform(texts), self.names
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

    def explain(self, text: str, label: int | str, *, most: int = 10) -> Explanation:
        """What speaks for and against a label, be it predicted or not.

        Args:
            label: its number or its name.
            most: terms and training documents to tell at most, each.

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
            self.vectorizer.transform([text]),
            self.vectorizer.terms(text),
            number,
            name,
            self._trained_on,
            most=most,
        )

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
        fitted = self.lexical.neighbors.labels.num_rows - added
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

    def _ask(self, features: Csr, top: int) -> tuple[Question, Found]:
        question = self._documents.ask(features, top)
        return question, self._labels.search(question.embeddings, question.k, question.given)
