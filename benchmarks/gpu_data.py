"""Made inputs of the shapes of public data sets, in memory, for the GPU benchmark."""

from __future__ import annotations

import numpy as np

from ray_xml.sparse import Csr
from ray_xml.synth_shapes import PUBLISHED, Statistics

SHAPES = {
    name: PUBLISHED[name]
    for name in ("lf-amazontitles-131k", "amazontitles-670k", "amazontitles-3m")
}
SMALL = {"small": Statistics(1_200, 1, 400, 900, 3.0, 9.0)}


def features_of(shape: Statistics, documents: int, *, seed: int) -> Csr:
    """[documents, features]: as many words a document, or fewer; with float32 weights."""
    each = round(shape.features_per_document)
    ids = _zipf(shape.features, documents * each, seed)
    rows = np.repeat(np.arange(documents), each)
    made = _joined(rows, ids, documents, shape.features)
    values = np.random.default_rng(seed).random(made.nnz).astype(np.float32)
    return Csr(made.offsets, made.ids, values, made.num_columns)


def labels_of(shape: Statistics, documents: int, *, seed: int) -> Csr:
    """[documents, labels]: one label a document or more, frequent ones by Zipf's law."""
    random = np.random.default_rng(seed)
    counts = 1 + random.poisson(shape.labels_per_document - 1, documents)
    ids = _zipf(shape.labels, int(counts.sum()), seed + 1)
    return _joined(np.repeat(np.arange(documents), counts), ids, documents, shape.labels)


def _zipf(width: int, size: int, seed: int) -> np.ndarray:
    """int64 [size] in 0..width; number r comes up in proportion to 1 / (r + 10)."""
    reached = np.cumsum(1.0 / (10.0 + np.arange(width)))
    drawn = np.random.default_rng(seed).random(size) * reached[-1]
    return np.asarray(np.minimum(np.searchsorted(reached, drawn), width - 1))


def _joined(rows: np.ndarray, ids: np.ndarray, height: int, width: int) -> Csr:
    """A 0/1 matrix of distinct (row, id) pairs."""
    keys = np.unique(rows.astype(np.int64) * width + ids)
    offsets = np.searchsorted(keys, np.arange(height + 1) * width)
    return Csr(offsets, (keys % width).astype(np.int32), None, width)
