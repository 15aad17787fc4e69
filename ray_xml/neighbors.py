"""Document neighbours: the training documents most like a document vote for their own labels.

Where labels have few documents each, the words themselves decide, and an embedding of a few
hundred dimensions cannot keep them all apart. So beside the dense search there is a sparse one:
cosine similarity over the heaviest features of every training document, through an inverted
index. There is nothing to train and nothing that grows old as the encoder learns.

Cutting documents to their heaviest features makes the search an order of magnitude faster than
on whole documents, and no less accurate (docs/ablations.md).

Documents that have no words, only dense columns (see ``embedding``), are searched for exactly among
their vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field

from ray_xml.config import Section
from ray_xml.cut_documents import cut
from ray_xml.postings import Postings, spread
from ray_xml.sparse import Csr
from ray_xml.top_entries import largest, top_entries
from ray_xml.vector_neighbors import VectorNeighbors
from ray_xml.votes import Votes, count_votes, count_votes_of_one

_SEARCH_BLOCK = 128  # documents searched at a time: bounds the scratch memory
_SHORT = 16384  # postings of a document up to which it is searched for together with others
_LEAST = 1e-6  # similarities below are none: their fourth powers would leave float32

_NOTHING = (np.zeros(0, np.int32), np.zeros(0, np.float32))


class NeighborsConfig(Section):
    """The sparse channel: documents' neighbours and labels' words.

    Attributes:
        size: neighbours that vote; 0 leaves the whole channel out.
        terms: features kept of each document, the heaviest.
        labels: labels that are taken over as candidates, the most voted for.
        label_terms: features kept of each label, the heaviest.
        idf: whether features are weighted by their inverse document frequency first; ``auto``
            does so where the values of a document are all equal, that is, carry no weights yet.
    """

    size: int = Field(100, ge=0)
    terms: int = Field(32, ge=1)
    labels: int = Field(100, ge=1, le=10_000)  # a document's candidates take memory
    label_terms: int = Field(100, ge=1)
    idf: Literal["auto", "on", "off"] = "auto"


class Neighbors:
    """An index of documents with known labels.

    Attributes:
        labels: [N, L] the documents' labels.
        weights: float32 [V], idf weights that queries get too, 0 of dense columns, which would
            make every document a neighbour of every other; None for none.
        vectors: float16 [N, V], of unit length, of documents without words; None for others.
        label_counts: int64 [L]: documents of each label.
    """

    def __init__(
        self,
        config: NeighborsConfig,
        postings: Csr,
        labels: Csr,
        weights: np.ndarray | None,
        vectors: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            postings: [V, N], the documents' weights by feature; see ``of_documents``. Empty where
                there are vectors.
            labels, weights, vectors: the attributes.

        Raises:
            ValueError: damaged, or they do not fit each other.
        """
        postings.check("postings")
        labels.check("labels")
        if postings.num_columns != labels.num_rows:
            raise ValueError(f"{postings.num_columns} documents, labels of {labels.num_rows}")
        if postings.values is None:
            raise ValueError("documents without weights")
        if weights is not None and weights.shape != (postings.num_rows,):
            raise ValueError(f"weights are {weights.shape}, for {postings.num_rows} features")
        if vectors is not None and vectors.shape != (labels.num_rows, postings.num_rows):
            raise ValueError(f"vectors are {vectors.shape}, for {labels.num_rows} documents")
        self.config, self.labels, self.weights, self.vectors = config, labels, weights, vectors
        self.label_counts = labels.column_counts()
        # No more than there are, whatever the config asks for: lists take memory.
        self._size = min(config.size, labels.num_rows)
        self._postings = Postings(postings)
        self._exact = None if vectors is None else VectorNeighbors(vectors)

    @staticmethod
    def of_documents(
        config: NeighborsConfig,
        documents: Csr,
        labels: Csr,
        weights: np.ndarray | None,
        vectors: np.ndarray | None = None,
    ) -> Neighbors:
        """An index of documents [N, V] from ``cut``; errors are those of the constructor."""
        documents.check("documents")
        return Neighbors(config, documents.transpose(), labels, weights, vectors)

    @staticmethod
    def build(
        config: NeighborsConfig, features: Csr, labels: Csr, words: int | None = None
    ) -> Neighbors:
        """Indexes the given training documents.

        Args:
            words: features that are no dense columns, the first ones; None is all.

        Raises:
            ValueError: ids that are no features or labels, so the data set is damaged.
        """
        features.check("features")
        if config.size == 0:
            none = Csr(np.zeros(features.num_columns + 1, np.int64), *_NOTHING, features.num_rows)
            return Neighbors(config, none, labels, None)
        weights, width = None, features.num_columns
        words = width if words is None else words
        if words == 0:
            none = Csr(np.zeros(width + 1, np.int64), *_NOTHING, features.num_rows)
            return Neighbors(config, none, labels, None, VectorNeighbors.build(features).vectors)
        of_words = features if words == width else features.columns(0, words)
        if config.idf == "on" or (config.idf == "auto" and _carries_no_weights(of_words)):
            counts = of_words.column_counts()
            weights = np.log((1 + features.num_rows) / (1 + counts)).astype(np.float32)
        if words < width:
            weights = np.ones(words, np.float32) if weights is None else weights
            weights = np.pad(weights, (0, width - words))
        documents = cut(features, config.terms, weights)
        return Neighbors.of_documents(config, documents, labels, weights)

    @property
    def num_features(self) -> int:
        return self._postings.rows.num_rows

    @property
    def num_labels(self) -> int:
        return self.labels.num_columns

    @cached_property
    def documents(self) -> Csr:
        """[N, V]: the documents by rows; a search does not need them, so they are made here."""
        return self._postings.rows.transpose()

    def tensors(self) -> dict[str, np.ndarray]:
        """All of it as named vectors; ``from_tensors`` takes them back."""
        postings, labels = self._postings.rows, self.labels.packed()
        assert postings.values is not None
        named = {
            "postings.offsets": postings.offsets,
            "postings.ids": postings.ids,
            "postings.values": postings.values,
            "labels.offsets": labels.offsets,
            "labels.ids": labels.ids,
            "widths": np.array([postings.num_columns, labels.num_columns]),
        }
        if self.weights is not None:
            named["weights"] = self.weights
        if self.vectors is not None:
            named["vectors"] = self.vectors.reshape(-1)
        return named

    @staticmethod
    def from_tensors(config: NeighborsConfig, named: Mapping[str, np.ndarray]) -> Neighbors:
        """The inverse of ``tensors``; the vectors may be memory-mapped.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays are no matrices, or do not fit each other.
        """
        documents, labels = (int(width) for width in named["widths"])
        postings = Csr(
            named["postings.offsets"],
            named["postings.ids"],
            named["postings.values"],
            documents,
        )
        known = Csr(named["labels.offsets"], named["labels.ids"], None, labels)
        vectors = named.get("vectors")
        if vectors is not None:
            vectors = vectors.reshape(documents, postings.num_rows)
        return Neighbors(config, postings, known, named.get("weights"), vectors)

    def queries(self, features: Csr) -> Csr:
        """[n, V]: documents cut as the indexed ones were; whole where these have vectors."""
        if self._exact is not None:
            return features
        return cut(features, self.config.terms, self.weights)

    def vote(self, queries: Csr) -> Votes:
        """The labels of each document's neighbours, for documents from ``queries``."""
        count = queries.num_rows
        if count == 0 or self._size == 0:
            none = np.zeros((count, 0), np.float32)
            nobody = np.zeros(count, np.float32)
            return Votes(none.astype(np.int32), none, none, nobody, nobody)
        if count == 1:
            return count_votes_of_one(self.labels, *self.nearest(queries), self.config.labels)
        blocks = [block for _, block in queries.blocks(_SEARCH_BLOCK)]
        parts = spread(self._vote, blocks)
        return Votes(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in Votes.__dataclass_fields__
            )
        )

    def nearest(self, query: Csr) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [≤ k], float32 [≤ k]): the neighbours that vote for a document from ``queries``,
        [1, V], and their similarities, best first."""
        if self._exact is not None:
            places, similarities = self._exact.nearest(query, self._size, _LEAST)
            near = similarities[0] > 0
            return places[0][near], similarities[0][near]
        alike = self._postings.product(query)
        nearest = largest(alike, self._size)
        nearest = nearest[alike[nearest] >= _LEAST]
        return nearest, alike[nearest]

    def _nearest_each(self, queries: Csr) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [n, k], float32 [n, k]): neighbours and their similarities, best first, 0 where
        there is no more."""
        n, k = queries.num_rows, self._size
        if self._exact is not None:
            return self._exact.nearest(queries, k, _LEAST)
        places, similarities = np.zeros((n, k), np.int64), np.zeros((n, k), np.float32)
        short = self._postings.work(queries) <= _SHORT
        together = np.flatnonzero(short)
        found, best = top_entries(self._postings.products(queries.take(together)), k)
        places[together, : found.shape[1]] = found
        similarities[together, : found.shape[1]] = np.where(best < _LEAST, np.float32(0), best)
        for row in np.flatnonzero(~short).tolist():
            nearest, alike = self.nearest(queries.slice(row, row + 1))
            places[row, : len(nearest)], similarities[row, : len(nearest)] = nearest, alike
        return places, similarities

    def _vote(self, queries: Csr) -> Votes:
        return count_votes(self.labels, *self._nearest_each(queries), self.config.labels)


def _carries_no_weights(features: Csr) -> bool:
    """Whether the values of each document are all equal."""
    rows = features.packed()
    if rows.values is None:
        return True
    counts = rows.counts
    starts = rows.offsets[:-1][counts > 0]
    if len(starts) == 0:
        return False
    low = np.minimum.reduceat(rows.values, starts)
    high = np.maximum.reduceat(rows.values, starts)
    return bool(np.all(high - low <= 1e-6 * np.abs(high)))
