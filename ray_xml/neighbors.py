"""Document neighbours: the training documents most like a document vote for their own labels.

Where labels have few documents each, the words themselves decide, and an embedding of a few
hundred dimensions cannot keep them all apart. So beside the dense search there is a sparse one:
cosine similarity over the heaviest features of every training document, through an inverted
index. There is nothing to train and nothing that grows old as the encoder learns.

Cutting documents to their heaviest features makes the search an order of magnitude faster than
on whole documents, and no less accurate (docs/ablations.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from pydantic import Field

from ray_xml.config import Section
from ray_xml.postings import Postings, spread
from ray_xml.sparse import Csr
from ray_xml.top_entries import heaviest, largest, top_entries

SHARP, FLAT = 4.0, 2.0  # exponents of the similarity in the two kinds of votes
_BLOCK = 4096  # documents cut at a time
_SEARCH_BLOCK = 128  # documents searched at a time: bounds the scratch memory
_LEAST = 1e-6  # similarities below are none: their fourth powers would leave float32

_NOTHING = (np.zeros(0, np.int32), np.zeros(0, np.float32))


class NeighborsConfig(Section):
    """The sparse channel: documents' neighbours and labels' words.

    Attributes:
        size: neighbours that vote; 0 leaves the whole channel out.
        terms: features kept of each document, the heaviest.
        labels: labels that are taken over as candidates, the most voted for.
        label_terms: features kept of each label, the heaviest (see ``label_words``).
        idf: whether features are weighted by their inverse document frequency first; ``auto``
            does so where the values of a document are all equal, that is, carry no weights yet.
    """

    size: int = Field(100, ge=0)
    terms: int = Field(32, ge=1)
    labels: int = Field(100, ge=1)
    label_terms: int = Field(100, ge=1)
    idf: Literal["auto", "on", "off"] = "auto"


@dataclass(frozen=True)
class Votes:
    """The labels that neighbours vote for, for a block of n documents.

    Attributes:
        labels: int32 [n, m], most votes first, −1 for none.
        flat, sharp: float32 [n, m], Σ similarity ** FLAT (SHARP) over the neighbours with the
            label; 0 where there is no label.
        flat_total, sharp_total: float32 [n], the same sums over all neighbours.
    """

    labels: np.ndarray
    flat: np.ndarray
    sharp: np.ndarray
    flat_total: np.ndarray
    sharp_total: np.ndarray


class Neighbors:
    """An index of documents with known labels."""

    def __init__(
        self, config: NeighborsConfig, documents: Csr, labels: Csr, weights: np.ndarray | None
    ) -> None:
        """
        Args:
            documents: [N, V] from ``cut``.
            labels: [N, L] the documents' labels.
            weights: float32 [V], idf weights that queries get too; None for none.

        Raises:
            ValueError: they do not fit each other.
        """
        _check_ids("documents", documents)
        _check_ids("labels", labels)
        if documents.num_rows != labels.num_rows:
            raise ValueError(f"{documents.num_rows} documents, labels of {labels.num_rows}")
        if weights is not None and weights.shape != (documents.num_columns,):
            raise ValueError(f"weights are {weights.shape}, for {documents.num_columns} features")
        self.config, self.documents, self.labels, self.weights = config, documents, labels, weights
        self.label_counts = labels.column_counts()  # int64 [L]
        # scipy wants one integer type, and 32 bits halve the memory that a search reads.
        self._postings = Postings(documents.to_scipy().T.tocsr())
        self._votes = labels.to_scipy().tocsr()

    @staticmethod
    def build(config: NeighborsConfig, features: Csr, labels: Csr) -> Neighbors:
        """Indexes the given training documents.

        Raises:
            ValueError: ids that are no features or labels, so the data set is damaged.
        """
        _check_ids("features", features)
        if config.size == 0:
            none = Csr(np.zeros(features.num_rows + 1, np.int64), *_NOTHING, features.num_columns)
            return Neighbors(config, none, labels, None)
        weights = None
        if config.idf == "on" or (config.idf == "auto" and _carries_no_weights(features)):
            counts = features.column_counts()
            weights = np.log((1 + features.num_rows) / (1 + counts)).astype(np.float32)
        return Neighbors(config, cut(features, config.terms, weights), labels, weights)

    def tensors(self) -> dict[str, np.ndarray]:
        """All of it as named arrays; ``from_tensors`` takes them back."""
        named = {
            "documents.offsets": self.documents.offsets,
            "documents.ids": self.documents.ids,
            "documents.values": self.documents.values,
            "labels.offsets": self.labels.packed().offsets,
            "labels.ids": self.labels.packed().ids,
            "widths": np.array([self.documents.num_columns, self.labels.num_columns]),
        }
        if self.weights is not None:
            named["weights"] = self.weights
        return {name: value for name, value in named.items() if value is not None}

    @staticmethod
    def from_tensors(config: NeighborsConfig, named: Mapping[str, np.ndarray]) -> Neighbors:
        """The inverse of ``tensors``.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays are no matrices, or do not fit each other.
        """
        features, labels = (int(width) for width in named["widths"])
        documents = Csr(
            named["documents.offsets"],
            named["documents.ids"],
            named["documents.values"],
            features,
        )
        known = Csr(named["labels.offsets"], named["labels.ids"], None, labels)
        return Neighbors(config, documents, known, named.get("weights"))

    def queries(self, features: Csr) -> Csr:
        """[n, V]: documents cut as the indexed ones were."""
        return cut(features, self.config.terms, self.weights)

    def vote(self, queries: Csr) -> Votes:
        """The labels of each document's neighbours, for documents from ``queries``."""
        count = queries.num_rows
        if count == 0 or self.config.size == 0:
            none = np.zeros((count, 0), np.float32)
            nobody = np.zeros(count, np.float32)
            return Votes(none.astype(np.int32), none, none, nobody, nobody)
        if count == 1:
            return self._vote_alone(queries)
        blocks = [block for _, block in queries.blocks(_SEARCH_BLOCK)]
        parts = spread(self._vote, blocks)
        return Votes(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in Votes.__dataclass_fields__
            )
        )

    def _vote_alone(self, query: Csr) -> Votes:
        """As ``_vote`` for a single document, without scipy."""
        alike = self._postings.product(query)
        places = largest(alike, self.config.size)
        places = places[alike[places] >= _LEAST]
        flat, sharp = alike[places] ** FLAT, alike[places] ** SHARP
        theirs = self.labels.take(places)
        counts = theirs.counts
        labels, voted = np.unique(theirs.ids, return_inverse=True)
        by_sharp = np.bincount(voted, np.repeat(sharp, counts)).astype(np.float32)
        by_flat = np.bincount(voted, np.repeat(flat, counts)).astype(np.float32)
        best = largest(by_sharp, self.config.labels)
        width = self.config.labels
        found = np.full((1, width), -1, np.int32)
        votes = np.zeros((2, 1, width), np.float32)
        found[0, : len(best)] = labels[best]
        votes[0, 0, : len(best)], votes[1, 0, : len(best)] = by_flat[best], by_sharp[best]
        return Votes(found, votes[0], votes[1], flat.sum(keepdims=True), sharp.sum(keepdims=True))

    def _vote(self, queries: Csr) -> Votes:
        places, similarities = top_entries(self._postings.products(queries), self.config.size)
        n, k = places.shape
        similarities = np.where(similarities < _LEAST, np.float32(0), similarities)
        flat, sharp = similarities**FLAT, similarities**SHARP
        offsets = np.arange(n + 1) * k
        shape = (n, self.labels.num_rows)
        by_flat = scipy.sparse.csr_matrix((flat.ravel(), places.ravel(), offsets), shape)
        by_sharp = scipy.sparse.csr_matrix((sharp.ravel(), places.ravel(), offsets), shape)
        flat_votes, sharp_votes = by_flat @ self._votes, by_sharp @ self._votes
        # Both products have the same pattern in the same order: the same entries were added up.
        order, best = top_entries(sharp_votes, self.config.labels, places=True)
        missing = self.config.labels - order.shape[1]
        taken = np.pad(order, ((0, 0), (0, missing)), constant_values=-1)
        best = np.pad(best, ((0, 0), (0, missing)))
        none = best <= 0
        taken = np.where(none, 0, taken)
        if sharp_votes.nnz == 0:
            return Votes(
                np.full(taken.shape, -1, np.int32), best, best.copy(), flat.sum(1), sharp.sum(1)
            )
        labels = np.where(none, np.int32(-1), sharp_votes.indices[taken].astype(np.int32))
        flat_best = np.where(none, np.float32(0), flat_votes.data[taken])
        return Votes(labels, flat_best, best, flat.sum(1), sharp.sum(1))


def cut(features: Csr, terms: int, weights: np.ndarray | None) -> Csr:
    """Documents of unit length, cut to their ``terms`` heaviest features (positive ones only).

    They are scaled before they are cut, so that a cut document is shorter than one: what was
    left out counts as unlike.
    """
    if features.num_rows == 1:
        return _cut_alone(features.packed(), terms, weights)
    parts = []
    for _, block in features.blocks(_BLOCK):
        rows = block.to_scipy()
        if weights is not None:
            rows.data = rows.data * weights[rows.indices]
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(1))).ravel()
        scale = (1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)
        rows.data = rows.data * np.repeat(scale, np.diff(rows.indptr))
        parts.append(heaviest(rows, terms))
    if not parts:
        return Csr(np.zeros(1, np.int64), *_NOTHING, features.num_columns)
    return Csr.from_scipy(scipy.sparse.vstack(parts, format="csr"))


def _cut_alone(row: Csr, terms: int, weights: np.ndarray | None) -> Csr:
    """As ``cut`` for a single document, without scipy."""
    values = np.ones(row.nnz, np.float32) if row.values is None else row.values
    if weights is not None:
        values = values * weights[row.ids]
    length = np.sqrt(values @ values)
    values = values * np.float32(1.0 / max(float(length), 1e-12))
    kept = np.sort(largest(values, terms))
    return Csr(np.array([0, len(kept)]), row.ids[kept], values[kept], row.num_columns)


def _check_ids(name: str, rows: Csr) -> None:
    """scipy trusts its indices: wrong ones would read and write foreign memory."""
    starts = rows.num_rows >= 0 and rows.offsets[0] >= 0
    if not starts or rows.offsets[-1] > len(rows.ids) or rows.counts.min(initial=0) < 0:
        raise ValueError(f"the offsets of {name} do not fit their ids")
    ids = rows.packed().ids
    if len(ids) and not 0 <= ids.min() <= ids.max() < rows.num_columns:
        raise ValueError(f"ids of {name} are not all in 0..{rows.num_columns - 1}")


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
