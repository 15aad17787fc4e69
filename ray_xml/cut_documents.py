"""Documents cut to their heaviest features, as the sparse channel searches them."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from ray_xml.sparse import Csr
from ray_xml.top_entries import heaviest, largest

_BLOCK = 4096  # documents cut at a time


def cut(features: Csr, terms: int, weights: np.ndarray | None) -> Csr:
    """Documents of unit length, cut to their ``terms`` heaviest features (positive ones only).

    They are scaled before they are cut, so that a cut document is shorter than one: what was
    left out counts as unlike.
    """
    if features.num_rows == 1:
        return _cut_alone(features.packed(), terms, weights)
    parts = [scipy.sparse.csr_matrix((0, features.num_columns), dtype=np.float32)]
    for _, block in features.blocks(_BLOCK):
        rows = block.to_scipy()
        if weights is not None:
            rows.data = rows.data * weights[rows.indices]
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(1))).ravel()
        scale = (1.0 / np.maximum(lengths, 1e-12)).astype(np.float32)
        rows.data = rows.data * np.repeat(scale, np.diff(rows.indptr))
        parts.append(heaviest(rows, terms))
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
