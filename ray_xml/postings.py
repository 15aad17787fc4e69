"""Products of sparse documents with a sparse table, and work spread over threads.

One document's rows of the table are added up in place, which is fastest where they are long. Where
they are short, scipy multiplies a block of documents in less time than it takes to set up as many
products. Both add in the same order, so they agree to the last bit.
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
    """A sparse table [V, W], by rows; its arrays may be memory-mapped.

    Attributes:
        rows: the table.
    """

    def __init__(self, rows: Csr) -> None:
        self.rows = rows
        self._table = rows.to_scipy()

    def work(self, queries: Csr) -> np.ndarray:
        """int64 [n]: entries of the table that each document's product adds up."""
        rows = queries.packed()
        return np.diff(np.concatenate([[0], np.cumsum(self.rows.counts[rows.ids])])[rows.offsets])

    def products(self, queries: Csr) -> scipy.sparse.csr_matrix:
        """float32 [n, W], sparse."""
        return (queries.to_scipy() @ self._table).tocsr()

    def product(self, query: Csr) -> np.ndarray:
        """float32 [W]: the product of one document, [1, V]."""
        row = query.packed()
        assert row.num_rows == 1
        return np.asarray(self._table[row.ids].T @ row.values)


def spread(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """``work`` of each item, over as many threads as torch computes with.

    What takes the time, scipy's products and torch's selections, runs outside Python's lock.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="lexical") as pool:
        return list(pool.map(work, items))
