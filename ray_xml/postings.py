"""Products of sparse documents with a sparse table, for many documents or for one.

scipy multiplies blocks well, but setting a product up takes it longer than computing one
document's. A lone document therefore adds its postings up with ``numpy.bincount``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import scipy.sparse
import torch

from ray_xml.sparse import Csr

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Postings:
    """A sparse table [V, W], by rows."""

    def __init__(self, table: scipy.sparse.csr_matrix) -> None:
        self.table = table
        self._rows = Csr(table.indptr.astype(np.int64), table.indices, table.data, table.shape[1])

    @property
    def width(self) -> int:
        return int(self.table.shape[1])

    def products(self, queries: Csr) -> scipy.sparse.csr_matrix:
        """float32 [n, W], sparse."""
        return (queries.to_scipy() @ self.table).tocsr()

    def product(self, query: Csr) -> np.ndarray:
        """float32 [W]: the product of a single document, dense."""
        row = query.packed()
        assert row.num_rows == 1
        assert row.values is not None
        found = self._rows.take(row.ids)
        assert found.values is not None
        weights = found.values * np.repeat(row.values, found.counts)
        return np.bincount(found.ids, weights, self.width).astype(np.float32)


def spread(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """``work`` of each item, over as many threads as torch computes with.

    What takes the time, scipy's products and torch's selections, runs outside Python's lock.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="lexical") as pool:
        return list(pool.map(work, items))
