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
import torch
from pydantic import Field

from ray_xml.config import Section
from ray_xml.sparse import Csr

SHARP, FLAT = 4.0, 2.0  # exponents of the similarity in the two kinds of votes
_BLOCK = 4096  # documents cut at a time
_SEARCH_BLOCK = 128  # documents searched at a time: bounds the scratch memory


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
        """
        self.config, self.documents, self.labels, self.weights = config, documents, labels, weights
        self.label_counts = labels.column_counts()  # int64 [L]
        # scipy wants one integer type, and 32 bits halve the memory that a search reads.
        self._postings = documents.to_scipy().T.tocsr()
        self._votes = labels.to_scipy().tocsr()

    @staticmethod
    def build(config: NeighborsConfig, features: Csr, labels: Csr) -> Neighbors:
        """Indexes the given training documents."""
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

    def queries(self, features: Csr) -> scipy.sparse.csr_matrix:
        """float32 [n, V]: documents cut as the indexed ones were."""
        return cut(features, self.config.terms, self.weights).to_scipy()

    def vote(self, queries: scipy.sparse.csr_matrix) -> Votes:
        """The labels of each document's neighbours, for documents from ``queries``."""
        count = queries.shape[0]
        if count == 0 or self.config.size == 0:
            none = np.zeros((count, 0), np.float32)
            nobody = np.zeros(count, np.float32)
            return Votes(none.astype(np.int32), none, none, nobody, nobody)
        starts = range(0, count, _SEARCH_BLOCK)
        parts = [self._vote(queries[first : first + _SEARCH_BLOCK]) for first in starts]
        return Votes(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in Votes.__dataclass_fields__
            )
        )

    def _vote(self, queries: scipy.sparse.csr_matrix) -> Votes:
        places, similarities = top_entries(queries @ self._postings, self.config.size)
        n, k = places.shape
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
    parts = []
    for _, block in features.blocks(_BLOCK):
        rows = block.to_scipy()
        if weights is not None:
            rows.data = rows.data * weights[rows.indices]
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(1))).ravel()
        scale = (1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)
        rows.data = rows.data * np.repeat(scale, np.diff(rows.indptr))
        places, values = top_entries(rows, terms, places=True)
        kept = np.zeros(rows.nnz, bool)
        kept[places[values > 0]] = True
        ends = np.concatenate([[0], np.cumsum(kept)])
        parts.append(
            scipy.sparse.csr_matrix(
                (rows.data[kept], rows.indices[kept], ends[rows.indptr]), shape=rows.shape
            )
        )
    if not parts:
        return Csr(np.zeros(1, np.int64), *_NOTHING, features.num_columns)
    return Csr.from_scipy(scipy.sparse.vstack(parts, format="csr"))


def top_entries(
    matrix: scipy.sparse.csr_matrix, k: int, *, places: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest positive entries of each row.

    Args:
        places: give the entries' places in ``matrix.data`` rather than their columns.

    Returns:
        (columns or places int64 [n, ≤ k], values float32 [n, ≤ k]), largest first, value 0 where
        a row has fewer (the column there is any).
    """
    counts = np.diff(matrix.indptr)
    width = int(counts.max(initial=0))
    if width == 0:
        none = np.zeros((len(counts), 0), np.float32)
        return none.astype(np.int64), none
    rows = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
    padded = torch.zeros(len(counts) * width)
    padded[torch.from_numpy(rows * width + within)] = torch.from_numpy(
        matrix.data.astype(np.float32, copy=False)
    )
    best, order = torch.topk(padded.view(len(counts), width), min(k, width), dim=1)
    values = best.clamp_min(0).numpy()
    taken = order.numpy() + np.where(values > 0, matrix.indptr[:-1][:, None], 0)
    taken = np.where(values > 0, taken, 0)
    return (taken if places else matrix.indices[taken].astype(np.int64)), values


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
