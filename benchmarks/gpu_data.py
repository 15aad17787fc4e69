"""Made inputs of the shapes of public data sets, in memory, for the GPU benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.sparse import Csr

FEATURES_EACH = 9  # words of a product's title


@dataclass(frozen=True)
class Shape:
    """A data set's counts; see the Extreme Classification Repository."""

    documents: int
    features: int
    labels: int
    labels_each: float


SHAPES = {
    "LF-AmazonTitles-131K": Shape(294_805, 40_000, 131_073, 2.29),
    "AmazonTitles-670K": Shape(485_176, 66_666, 670_091, 5.39),
    "AmazonTitles-3M": Shape(1_712_536, 165_431, 2_812_281, 36.18),
}
SMALL = {"small": Shape(1_200, 400, 900, 3.0)}


def features_of(shape: Shape, documents: int, *, seed: int) -> Csr:
    """[documents, features]: ``FEATURES_EACH`` words a document at most, with float32 weights."""
    ids = _zipf(shape.features, documents * FEATURES_EACH, seed)
    rows = np.repeat(np.arange(documents), FEATURES_EACH)
    made = _joined(rows, ids, documents, shape.features)
    values = np.random.default_rng(seed).random(made.nnz).astype(np.float32)
    return Csr(made.offsets, made.ids, values, made.num_columns)


def labels_of(shape: Shape, documents: int, *, seed: int) -> Csr:
    """[documents, labels]: one label a document or more, frequent ones by Zipf's law."""
    random = np.random.default_rng(seed)
    counts = 1 + random.poisson(shape.labels_each - 1, documents)
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
