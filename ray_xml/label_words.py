"""What features say of labels, counted rather than trained.

c(t, l) is the total weight of feature t in the documents of label l. Two readings of it tell how
well a document x fits a label:

    centroid      cosine of x and the label's column, Σ_t x_t c(t, l) / ‖c(·, l)‖
    association   Σ_t x_t c(t, l) / Σ_i x_ti, where c / Σ_i x_ti is the share of the feature's
                  weight that lies in the label's documents, an estimate of p(l | t)

The first favours labels whose documents look like this one as a whole, the second labels that a
single telling word points to. Columns are cut to the heaviest features of each label.

The counts are held once, label by label, and only the candidates' are read, so that scoring a
document takes no longer for millions of labels than for thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse

from ray_xml.postings import spread
from ray_xml.sparse import Csr
from ray_xml.top_entries import heaviest

_PRODUCTS = 1 << 24  # weights added up at a time, about: bounds the scratch memory
_PAIRS = 8192  # candidates scored at a time, likewise
_SLOTS = 1024  # the smallest table that a lone document's features are looked up in


class LabelWords:
    """The counts of one set of documents with known labels.

    Attributes:
        counts: [L, V], c, label by label; may be memory-mapped.
        scale: float32 [L], 1 / ‖c(·, l)‖.
        share: float32 [V], 1 / Σ_i x_ti.
    """

    def __init__(self, counts: Csr, scale: np.ndarray, share: np.ndarray) -> None:
        """
        Args:
            counts, scale: from ``count_words``.
            share: from ``shares``.

        Raises:
            ValueError: they are no such counts, or do not fit each other.
        """
        counts.check("words")
        shape = counts.num_rows, counts.num_columns
        if scale.shape != shape[:1] or share.shape != shape[1:] or counts.values is None:
            raise ValueError(f"words are {shape}, their scales {scale.shape} and {share.shape}")
        self.counts, self.scale, self.share = counts, scale, share
        self._table = _canonical(counts.to_scipy())

    @staticmethod
    def build(documents: Csr, labels: Csr, terms: int) -> LabelWords:
        """Counts in memory; arguments as for ``count_words``."""
        parts = list(count_words(documents, labels, terms))
        none = Csr(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
        blocks = [none, *(counts for counts, _ in parts)]
        lengths = np.concatenate([block.counts for block in blocks])
        counts = Csr(
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([block.ids for block in blocks]),
            np.concatenate([block.values for block in blocks if block.values is not None]),
            documents.num_columns,
        )
        scales = [np.zeros(0, np.float32), *(scale for _, scale in parts)]
        return LabelWords(counts, np.concatenate(scales), shares(documents))

    @property
    def num_labels(self) -> int:
        return self.counts.num_rows

    @property
    def num_features(self) -> int:
        return self.counts.num_columns

    def scores(self, queries: Csr, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How well documents fit their candidate labels.

        Args:
            queries: [n, V], cut as the indexed documents were.
            labels: int32 [n, m], −1 for none.

        Returns:
            (centroid, association), float32 [n, m] each, 0 where there is no label.
        """
        found = np.zeros((2, labels.size), np.float32)
        if self.counts.nnz == 0:  # documents without words
            return found[0].reshape(labels.shape), found[1].reshape(labels.shape)
        listed = np.flatnonzero(labels.ravel() >= 0)
        wanted = labels.ravel()[listed]
        if queries.num_rows == 1:
            found[:, listed] = self._score_alone(queries.packed(), wanted)
        else:
            asked, width = _canonical(queries.to_scipy()), labels.shape[1]

            def score(first: int) -> None:
                part = slice(first, first + _PAIRS)
                found[:, listed[part]] = self._score(asked[listed[part] // width], wanted[part])

            spread(score, range(0, len(wanted), _PAIRS))
        centroid, association = found.reshape(2, *labels.shape)
        return centroid, association

    def _score(self, asked: scipy.sparse.csr_matrix, wanted: np.ndarray) -> np.ndarray:
        """float64 [2, pairs]: centroid and association of each row with the label beside it."""
        shared = _canonical(self._table[wanted]).multiply(_canonical(asked)).tocsr()
        pairs = np.repeat(np.arange(len(wanted)), np.diff(shared.indptr))
        return self._add_up(wanted, pairs, shared.indices, shared.data)

    def _score_alone(self, query: Csr, wanted: np.ndarray) -> np.ndarray:
        """As ``_score`` for one document, without scipy."""
        assert query.values is not None
        # Features of the labels are looked up in a table small enough for the fastest cache: by
        # their lowest bits, in as many slots as keep the document's own apart.
        slots = _SLOTS
        while slots < self.num_features and len(set((query.ids % slots).tolist())) < query.nnz:
            slots *= 2
        lowest = np.int32(slots - 1)
        features, weights = np.full(slots, -1, np.int32), np.zeros(slots, np.float32)
        features[query.ids & lowest], weights[query.ids & lowest] = query.ids, query.values
        starts = self.counts.offsets[wanted]
        lengths = self.counts.offsets[wanted + 1] - starts
        ends = np.cumsum(lengths)
        source = np.arange(ends[-1] if len(ends) else 0)
        source += np.repeat(starts - (ends - lengths), lengths)
        ids = self.counts.ids[source]
        shared = np.flatnonzero(features[ids & lowest] == ids)
        ids = ids[shared]
        assert self.counts.values is not None
        products = weights[ids & lowest] * self.counts.values[source[shared]]
        return self._add_up(wanted, np.searchsorted(ends, shared, "right"), ids, products)

    def _add_up(
        self, wanted: np.ndarray, pairs: np.ndarray, features: np.ndarray, products: np.ndarray
    ) -> np.ndarray:
        """float64 [2, pairs], from each pair's x_t c(t, l)."""
        centroid = np.bincount(pairs, products, len(wanted)) * self.scale[wanted]
        association = np.bincount(pairs, products * self.share[features], len(wanted))
        return np.stack([centroid, association])


def count_words(documents: Csr, labels: Csr, terms: int) -> Iterator[tuple[Csr, np.ndarray]]:
    """The features of consecutive blocks of labels.

    Args:
        documents: [N, V], as ``neighbors.cut`` gives them.
        labels: [N, L] their labels.
        terms: features kept of each label, the heaviest.

    Returns:
        (counts [b, V] with rising ids and offsets from 0, scale float32 [b]) of b labels each.
    """
    rows = documents.to_scipy()
    held = labels.packed()
    ones = np.ones(held.nnz, np.int8)  # their transposition moves values too: the smallest ones
    shape = (labels.num_rows, labels.num_columns)
    by_label = scipy.sparse.csr_matrix((ones, held.ids, held.offsets), shape).tocsc()
    pairs = max(1, int(_PRODUCTS / max(1.0, documents.nnz / max(1, documents.num_rows))))
    first = 0
    while first < labels.num_columns:
        reached = by_label.indptr[first] + pairs
        last = max(first + 1, int(np.searchsorted(by_label.indptr, reached, "right")) - 1)
        low, high = by_label.indptr[first], by_label.indptr[last]
        block = scipy.sparse.csr_matrix(
            (
                np.ones(high - low, np.float32),
                by_label.indices[low:high],
                by_label.indptr[first : last + 1] - low,
            ),
            (last - first, labels.num_rows),
        )
        counts = heaviest((block @ rows).tocsr(), terms)
        lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(1))).ravel()
        yield Csr.from_scipy(counts), (1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)
        first = last


def block_bytes(documents: int, postings: int, pairs: int) -> int:
    """Bytes of one block that ``count_words`` works with: its products, and their heaviest.

    Args:
        documents, postings: N and the stored features of all.
        pairs: (document, label) pairs.
    """
    return 3 * 8 * min(_PRODUCTS, pairs * postings // max(documents, 1))


def shares(documents: Csr) -> np.ndarray:
    """float32 [V], 1 / Σ_i x_ti over documents x_i."""
    totals = np.asarray(documents.to_scipy().sum(0), np.float64).ravel()
    return (1.0 / np.maximum(totals, 1e-12)).astype(np.float32)


def _canonical(rows: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """The same matrix, told that its rows ascend without repeats, which scipy would check."""
    rows.has_canonical_format = True
    return rows
