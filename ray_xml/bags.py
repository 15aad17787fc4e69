"""Weighted sums of table rows: the one sparse kernel of the method, forwards and transposed.

Encoding documents, the gradient of the token table, label centroids and the proxies' weighted
sums are all "for each bag, add up w_j · table[id_j]". ``torch.embedding_bag`` does that in one
vectorised pass on CPU and GPU without ever forming a dense feature matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_xml.sparse import Csr
from ray_xml.transfer import placed


class Bags(NamedTuple):
    """A batch of bags: bag i holds ids[offsets[i]:offsets[i + 1]].

    Attributes:
        ids: int64 [nnz], rows of the table that will be summed.
        offsets: int64 [bags], where each bag begins.
        weights: float32 [nnz].
    """

    ids: Tensor
    offsets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Bags:
        return Bags(*(placed(part, device) for part in self))


def bags_of(rows: Csr) -> Bags:
    """One bag a row."""
    rows = rows.packed()
    weights = np.ones(rows.nnz, np.float32) if rows.values is None else rows.values
    return Bags(
        torch.from_numpy(rows.ids.astype(np.int64)),
        torch.from_numpy(np.ascontiguousarray(rows.offsets[:-1])),
        torch.from_numpy(np.array(weights, np.float32)),
    )


def transposed_bags(rows: Csr) -> tuple[np.ndarray, Bags]:
    """One bag a *used* column, holding the rows that use it.

    Returns:
        (columns, bags): int64 [U] ascending, and U bags whose ids are row numbers, ascending.
    """
    rows = rows.packed()
    if rows.num_columns > 32 * rows.nnz:
        # scipy's transposition takes time for every column there is: few entries in a very wide
        # matrix are renumbered first.
        used, ids = np.unique(rows.ids, return_inverse=True)
        narrow = Csr(rows.offsets, ids.astype(np.int32), rows.values, len(used))
        places, bags = _transposed(narrow)
        return used[places].astype(np.int64), bags
    return _transposed(rows)


def _transposed(rows: Csr) -> tuple[np.ndarray, Bags]:
    turned = rows.to_scipy().tocsc()
    columns = np.flatnonzero(np.diff(turned.indptr))
    return columns, Bags(
        torch.from_numpy(turned.indices.astype(np.int64)),
        torch.from_numpy(turned.indptr[columns].astype(np.int64)),
        torch.from_numpy(turned.data),
    )


def sum_bags(table: Tensor, bags: Bags) -> Tensor:
    """float32 [bags, D]: the weighted row sums; an empty bag gives zeros."""
    if len(bags.offsets) == 0:
        return table.new_zeros((0, table.shape[1]))
    return F.embedding_bag(
        bags.ids, table, bags.offsets, mode="sum", per_sample_weights=bags.weights
    )
