"""The sparse channel as a whole: what documents' own words say about their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.label_words import LabelWords
from ray_xml.neighbors import Neighbors
from ray_xml.sparse import Csr
from ray_xml.votes import Votes


@dataclass(frozen=True)
class Answer:
    """What the channel says about a block of n documents.

    Attributes:
        votes: of their neighbours.
    """

    votes: Votes
    _queries: Csr
    _words: LabelWords

    def fits(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(centroid, association) of int32 [n, m] candidates, see ``LabelWords.scores``."""
        return self._words.scores(self._queries, labels)


class Lexical:
    """Neighbours and label words over the same cut documents."""

    def __init__(self, neighbors: Neighbors, words: LabelWords) -> None:
        """
        Raises:
            ValueError: they have other widths.
        """
        widths = neighbors.num_labels, neighbors.num_features
        if (words.num_labels, words.num_features) != widths:
            raise ValueError(
                f"words of {words.num_labels} labels and {words.num_features} features, "
                f"neighbours of {widths[0]} and {widths[1]}"
            )
        self.neighbors, self.words = neighbors, words

    @staticmethod
    def build(neighbors: Neighbors) -> Lexical:
        """The channel in memory, its words counted over the neighbours' documents."""
        terms = neighbors.config.label_terms
        return Lexical(neighbors, LabelWords.build(neighbors.documents, neighbors.labels, terms))

    @property
    def label_counts(self) -> np.ndarray:
        """int64 [L]: training documents of each label."""
        return self.neighbors.label_counts

    def ask(self, features: Csr) -> Answer:
        """Searches for documents, [n, V], as the indexed ones were before they were cut."""
        queries = self.neighbors.queries(features)
        return Answer(self.neighbors.vote(queries), queries, self.words)
