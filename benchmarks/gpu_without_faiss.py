"""FAISS's place taken by numpy, so that a machine without it can run the core on its GPU.

Searches are torch's there (``exact_search.TorchSearch``); what is left for FAISS is the exact score
of each pair that a search found, and searches on the CPU. Both are slower here than FAISS is.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np


def stand_in() -> bool:
    """Lets ``import faiss`` succeed; returns whether it took this module to do so."""
    try:
        import faiss  # noqa: F401
    except ImportError:
        module = ModuleType("faiss")
        for function in (swig_ptr, fvec_inner_products_by_idx, knn, omp_set_num_threads):
            setattr(module, function.__name__, function)
        module.METRIC_INNER_PRODUCT = 0  # type: ignore[attr-defined]
        settings = SimpleNamespace(distance_compute_blas_threshold=0)
        module.cvar = settings  # type: ignore[attr-defined]
        sys.modules["faiss"] = module
        return True
    return False


def swig_ptr(array: np.ndarray) -> np.ndarray:
    return array


def omp_set_num_threads(count: int) -> None:
    """numpy has no such setting."""


def fvec_inner_products_by_idx(
    scores: np.ndarray,
    queries: np.ndarray,
    vectors: np.ndarray,
    places: np.ndarray,
    dim: int,
    rows: int,
    width: int,
) -> None:
    """Fills ``scores``, float32 [rows, width], with each query's products at its ``places``."""
    assert places.shape == (rows, width)
    assert vectors.shape[1] == dim
    for row in range(rows):
        scores[row] = vectors[places[row]] @ queries[row]


def knn(
    queries: np.ndarray, vectors: np.ndarray, k: int, *, metric: int
) -> tuple[np.ndarray, np.ndarray]:
    """(products float32 [n, k], places int64 [n, k]), best first."""
    assert metric == 0
    products = queries @ vectors.T
    places = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(products, places, 1), places
