"""The largest entries of each row of a sparse matrix.

Rows are padded to a matrix for the selection, those of like length together and a bounded number
of cells at a time, so that one long row costs its own length and not that of all rows.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch

_CELLS = 1 << 24  # cells padded at a time: bounds the scratch memory
_MOST = 2**31 - 1  # columns are numbered by int32


def top_entries(
    matrix: scipy.sparse.csr_matrix, k: int, *, places: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k largest positive entries of each row; a row's result depends on that row alone.

    Args:
        places: give the entries' places in ``matrix.data`` rather than their columns.

    Returns:
        (columns or places int64 [n, ≤ k], values float32 [n, ≤ k]), largest first, ties by rising
        column, value 0 where a row has fewer (the column or place there is any).
    """
    counts = np.diff(matrix.indptr)
    width = min(k, int(counts.max(initial=0)))
    taken = np.zeros((len(counts), width), np.int64)
    values = np.zeros((len(counts), width), np.float32)
    if width == 0:
        return taken, values
    by_length = np.argsort(counts, kind="stable")
    rows, lengths = matrix[by_length], counts[by_length]
    first = 0
    while first < len(lengths):
        cells = np.arange(1, len(lengths) - first + 1) * lengths[first:]
        last = first + max(1, int(np.searchsorted(cells, _CELLS, "right")))
        within, best = _top(rows[first:last], k)
        into = by_length[first:last]
        starts = np.where(best > 0, matrix.indptr[into][:, None], 0)
        taken[into, : best.shape[1]] = starts + np.where(best > 0, within, 0)
        values[into, : best.shape[1]] = best
        first = last
    return (taken if places else matrix.indices[taken].astype(np.int64)), values


def heaviest(matrix: scipy.sparse.csr_matrix, k: int) -> scipy.sparse.csr_matrix:
    """Each row cut to its k largest positive entries, in the order in which they were."""
    counts, kept = np.diff(matrix.indptr), matrix.data > 0
    # Most rows are short, and the selection has k cells for each.
    longer = matrix[np.flatnonzero(counts > k)]
    places, values = top_entries(longer, k, places=True)
    best = np.zeros(longer.nnz, bool)
    best[places[values > 0]] = True
    kept[np.repeat(counts > k, counts)] = best
    ends = np.concatenate([[0], np.cumsum(kept)])
    return scipy.sparse.csr_matrix(
        (matrix.data[kept], matrix.indices[kept], ends[matrix.indptr]), shape=matrix.shape
    )


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """int64 [≤ k]: places of the k largest positive values, largest first, ties by rising place."""
    places = np.flatnonzero(values > 0)
    if k < len(places):
        # Among positive ones only: many equal values, such as zeros, make the partition slow.
        positive = values[places]
        places = places[positive >= np.partition(positive, len(places) - k)[len(places) - k]]
    return places[np.argsort(-values[places], kind="stable")][:k]


def _top(rows: scipy.sparse.csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(places within the row int64 [n, ≤ k], values float32 [n, ≤ k]) of rows padded at once."""
    counts = np.diff(rows.indptr)
    longest = int(counts.max(initial=0))
    shifts = np.arange(len(counts)) * longest - rows.indptr[:-1]
    cells = np.arange(rows.nnz) + np.repeat(shifts, counts)
    # One int64 sorts by value, then by falling column: the bits of a positive float order as the
    # floats do. + 0 makes a −0 a 0.
    values = np.maximum(rows.data, 0).astype(np.float32, copy=False) + np.float32(0)
    keys = values.view(np.int32).astype(np.int64)
    keys <<= 32
    keys += _MOST - rows.indices
    padded = torch.zeros(len(counts) * longest, dtype=torch.int64)
    padded[torch.from_numpy(cells)] = torch.from_numpy(keys)
    best, within = torch.topk(padded.view(len(counts), longest), min(k, longest), dim=1)
    return within.numpy(), (best.numpy() >> 32).astype(np.int32).view(np.float32)
