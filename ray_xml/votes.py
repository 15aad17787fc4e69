"""The votes of documents' neighbours for their own labels, counted.

Shape suffixes are written out: n documents, k neighbours each, m labels voted for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from ray_xml.sparse import Csr
from ray_xml.top_entries import largest, top_entries

SHARP, FLAT = 4.0, 2.0  # exponents of the similarity in the two kinds of votes


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


def count_votes(labels: Csr, places: np.ndarray, similarities: np.ndarray, most: int) -> Votes:
    """The ``most`` most voted for of each document.

    Args:
        labels: [N, L] of all documents.
        places, similarities: int64 and float32 [n, k], neighbours among them; a similarity of 0 is
            no vote.
    """
    n, k = places.shape
    flat, sharp = similarities**FLAT, similarities**SHARP
    near, theirs, named = _labels_of(labels, places)
    offsets = np.arange(n + 1) * k
    shape = (n, theirs.shape[0])
    by_flat = scipy.sparse.csr_matrix((flat.ravel(), near.ravel(), offsets), shape)
    by_sharp = scipy.sparse.csr_matrix((sharp.ravel(), near.ravel(), offsets), shape)
    flat_votes, sharp_votes = by_flat @ theirs, by_sharp @ theirs
    # Both products have the same pattern in the same order: the same entries were added up.
    order, best = top_entries(sharp_votes, most, places=True)
    missing = most - order.shape[1]
    taken = np.pad(order, ((0, 0), (0, missing)), constant_values=-1)
    best = np.pad(best, ((0, 0), (0, missing)))
    none = best <= 0
    taken = np.where(none, 0, taken)
    if sharp_votes.nnz == 0:
        return Votes(
            np.full(taken.shape, -1, np.int32), best, best.copy(), flat.sum(1), sharp.sum(1)
        )
    found = np.where(none, np.int32(-1), named[sharp_votes.indices[taken]])
    flat_best = np.where(none, np.float32(0), flat_votes.data[taken])
    return Votes(found, flat_best, best, flat.sum(1), sharp.sum(1))


def count_votes_of_one(
    labels: Csr, places: np.ndarray, similarities: np.ndarray, most: int
) -> Votes:
    """As ``count_votes`` for a single document, [k], without matrices."""
    flat, sharp = similarities**FLAT, similarities**SHARP
    theirs = labels.take(places)
    counts = theirs.counts
    voted_for, voted = np.unique(theirs.ids, return_inverse=True)
    by_sharp = np.bincount(voted, np.repeat(sharp, counts)).astype(np.float32)
    by_flat = np.bincount(voted, np.repeat(flat, counts)).astype(np.float32)
    best = largest(by_sharp, most)
    found = np.full((1, most), -1, np.int32)
    votes = np.zeros((2, 1, most), np.float32)
    found[0, : len(best)] = voted_for[best]
    votes[0, 0, : len(best)], votes[1, 0, : len(best)] = by_flat[best], by_sharp[best]
    return Votes(found, votes[0], votes[1], flat.sum(keepdims=True), sharp.sum(keepdims=True))


def _labels_of(
    labels: Csr, documents: np.ndarray
) -> tuple[np.ndarray, scipy.sparse.csr_matrix, np.ndarray]:
    """The labels of some documents, in a matrix that holds no others.

    Returns:
        (each document's row in the matrix, the matrix [d, m] of float32 ones, its columns'
        labels int32 [m], ascending), so that what is summed over it has the size of the
        labels that neighbours have rather than of all labels.
    """
    distinct, rows = np.unique(documents, return_inverse=True)
    theirs = labels.take(distinct)
    held = np.zeros(labels.num_columns, bool)
    held[theirs.ids] = True
    named = np.flatnonzero(held).astype(np.int32)
    column = np.empty(labels.num_columns, np.int32)
    column[named] = np.arange(len(named), dtype=np.int32)
    found = Csr(theirs.offsets, column[theirs.ids], None, len(named))
    return rows.reshape(documents.shape), found.to_scipy(), named
