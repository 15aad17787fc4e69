"""Products of sparse documents with a sparse table, for many documents or for one.

scipy multiplies blocks well, but setting a product up takes it longer than computing one
document's. A lone document therefore adds its postings up with ``numpy.bincount``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import scipy.sparse
import torch

from ray_xml.sparse import Csr

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Postings:
    """A sparse table [V, W], by rows; its arrays may be memory-mapped.

    Attributes:
        rows: the table.
    """

    def __init__(self, rows: Csr) -> None:
        self.rows = rows
        self._table = rows.to_scipy()

    def products(self, queries: Csr) -> scipy.sparse.csr_matrix:
        """float32 [n, W], sparse."""
        return (queries.to_scipy() @ self._table).tocsr()

    def product(self, query: Csr) -> tuple[np.ndarray, np.ndarray]:
        """(columns int64 [m], values float32 [m]): what is not 0 of a lone document's product."""
        row = query.packed()
        assert row.num_rows == 1
        assert row.values is not None
        found = self.rows.take(row.ids)
        assert found.values is not None
        weights = found.values * np.repeat(row.values, found.counts)
        sums = np.bincount(found.ids, weights, self.rows.num_columns)
        columns = np.flatnonzero(sums != 0)  # far faster than of the numbers themselves
        return columns, sums[columns].astype(np.float32)

    def blocks(self, queries: Csr, rows: int, entries: int) -> Iterator[Csr]:
        """Slices of ``queries``, of at most ``rows`` rows each, whose products have at most
        ``entries`` entries, or of one row."""
        lengths = self.rows.counts[queries.packed().ids]
        reached = np.concatenate([[0], np.cumsum(lengths)])[queries.packed().offsets]
        first = 0
        while first < queries.num_rows:
            fits = int(np.searchsorted(reached, reached[first] + entries, "right")) - 1
            last = min(max(fits, first + 1), first + rows)
            yield queries.slice(first, last)
            first = last


def spread(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """``work`` of each item, over as many threads as torch computes with.

    What takes the time, scipy's products and torch's selections, runs outside Python's lock.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="lexical") as pool:
        return list(pool.map(work, items))
