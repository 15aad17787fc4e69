"""Exact maximum-inner-product search over vectors that are held once, in float16 or float32.

``BlockSearch`` runs on the CPU, ``FaissGpuSearch`` where FAISS was built for a GPU, ``TorchSearch``
where only torch has one. All answer alike: up to rounding, the places of the k largest products.
``label_index`` makes the order exact.
"""

from __future__ import annotations

import sys
from typing import Protocol

import faiss
import numpy as np
import torch

from ray_xml.pair_scores import BLOCK, as_tensor, widened_blocks

_GPU_MOST = 2048  # the largest k of FAISS on a GPU
_QUERIES = 4096  # queries at a time on a GPU: bounds the block of products

# FAISS 1.15 multiplies matrices from 128,000 numbers on, queries times D, and works pair by pair
# below; at D = 300 products are the faster from 8 queries on, and five times as fast at 64. (Older
# ones count queries, from 20 on.)
_PRODUCTS_FROM = 2400
faiss.cvar.distance_compute_blas_threshold = min(
    faiss.cvar.distance_compute_blas_threshold, _PRODUCTS_FROM
)


class Search(Protocol):
    """What answers searches.

    Attributes:
        most: the largest k that may be asked for.
        rounding: how far a score may be from the exact one, in units of the product of the
            query's and the longest vector's lengths; far above what rounding does, far below what
            tells labels apart.
        nbytes: bytes held beside the vectors themselves.
    """

    most: int
    rounding: float
    nbytes: int

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores float32 [n, k], places int64 [n, k]) of float32 [n, D] queries, best first;
        k is at most the number of vectors."""


class BlockSearch:
    """On the CPU. Beyond the vectors it needs one block of them in float32, and that while it
    searches."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.most, self.nbytes = sys.maxsize, 0
        self.rounding = _float32_rounding(vectors.shape[1])
        self._vectors = vectors

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self._vectors.dtype == np.float32:
            scores, places = faiss.knn(queries, self._vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
            return scores, places
        heap = faiss.ResultHeap(len(queries), k, keep_max=True)
        for first, block in widened_blocks(self._vectors):
            width = min(k, len(block))
            scores, places = faiss.knn(queries, block, width, metric=faiss.METRIC_INNER_PRODUCT)
            heap.add_result(scores, places + first)
        heap.finalize()
        return heap.D, heap.I


class FaissGpuSearch:
    """By FAISS on GPU 0, in the vectors' own precision."""

    def __init__(self, vectors: np.ndarray) -> None:
        half = vectors.dtype == np.float16
        self._resources = faiss.StandardGpuResources()
        config = faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = 0, half
        self._index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1], config)
        for _, block in widened_blocks(vectors):
            self._index.add(block)
        self.most, self.nbytes = _GPU_MOST, vectors.nbytes
        # Beside float16 vectors FAISS rounds the query to float16, too.
        self.rounding = _float32_rounding(vectors.shape[1]) + (2.0**-10 if half else 0.0)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores, places = self._index.search(queries, k)
        return scores, places


class TorchSearch:
    """By torch on any device: products with one block of vectors after another, merged."""

    def __init__(self, vectors: np.ndarray, device: str = "cuda") -> None:
        self._vectors = as_tensor(vectors).to(device)
        self.most, self.nbytes = sys.maxsize, vectors.nbytes
        self.rounding = _float32_rounding(vectors.shape[1])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.empty((len(queries), k), np.float32)
        places = np.empty((len(queries), k), np.int64)
        for first in range(0, len(queries), _QUERIES):
            rows = slice(first, first + _QUERIES)
            best = self._best(torch.from_numpy(queries[rows]).to(self._vectors.device), k)
            scores[rows], places[rows] = (part.cpu().numpy() for part in best)
        return scores, places

    def _best(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores = queries.new_empty((len(queries), 0))
        places = torch.empty_like(scores, dtype=torch.int64)
        for first in range(0, len(self._vectors), BLOCK):
            block = self._vectors[first : first + BLOCK].float()
            new, at = (queries @ block.t()).topk(min(k, len(block)), dim=1)
            scores, places = torch.cat([scores, new], 1), torch.cat([places, at + first], 1)
            scores, order = scores.topk(min(k, scores.shape[1]), dim=1)
            places = places.gather(1, order)
        return scores, places


def faiss_has_gpu() -> bool:
    """Whether FAISS was built for a GPU and finds one."""
    return getattr(faiss, "get_num_gpus", lambda: 0)() > 0


def exact_search(vectors: np.ndarray, gpu: bool) -> Search:
    """The search for this machine; ``gpu`` asks for GPU 0, which FAISS or torch must have found."""
    if not gpu or len(vectors) == 0:
        return BlockSearch(vectors)
    return FaissGpuSearch(vectors) if faiss_has_gpu() else TorchSearch(vectors)


def _float32_rounding(dim: int) -> float:
    """Far above the rounding of a sum of ``dim`` float32 products."""
    return float(8.0 * np.finfo(np.float32).eps * dim**0.5)
