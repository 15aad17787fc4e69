"""Inner products of chosen (query, vector) pairs, and float16 vectors widened block by block.

A score is worked out from its two vectors alone, so it does not depend on where a vector lies or
on what is scored beside it. Widening float16 to float32 is exact: vectors held in float16 score as
the same numbers held in float32 do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

BLOCK = 16384  # vectors widened at a time: bounds the scratch memory
_GATHERED = 4096  # vectors fetched at a time to be scored


class _Writable:
    """The array's memory under the flag that torch asks for; nobody here writes to it."""

    def __init__(self, array: np.ndarray) -> None:
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}
        self._array = array  # keeps the memory alive


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory, which is to be read only. The array may be read-only."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    return torch.from_numpy(np.asarray(_Writable(array)))


def torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    """torch's name for float16 or float32."""
    return torch.float16 if dtype == np.float16 else torch.float32


def widen(vectors: np.ndarray, into: np.ndarray) -> np.ndarray:
    """Writes float16 or float32 [n, D] ``vectors`` to float32 ``into``, and returns it.

    By torch, whose conversion is ten times as fast as NumPy's.
    """
    torch.from_numpy(into).copy_(as_tensor(vectors))
    return into


def widened_blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first, float32 [n, D]) block by block; float16 blocks lie in one scratch array, and each
    is gone when the next is asked for."""
    if vectors.dtype == np.float32:
        for first in range(0, len(vectors), BLOCK):
            yield first, vectors[first : first + BLOCK]
        return
    scratch = np.empty((min(BLOCK, len(vectors)), vectors.shape[1]), np.float32)
    for first in range(0, len(vectors), BLOCK):
        block = vectors[first : first + BLOCK]
        yield first, widen(block, scratch[: len(block)])


def longest(vectors: np.ndarray) -> float:
    """The largest Euclidean length among ``vectors``, float16 or float32 [n, D]; 0 for none."""
    squares = [
        float(np.einsum("nd,nd->n", block, block).max()) for _, block in widened_blocks(vectors)
    ]
    return float(max(squares, default=0.0) ** 0.5)


def pair_scores(queries: np.ndarray, vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
    """float32 [n, k]: inner products of each query with the vectors at its ``places``.

    Args:
        queries: float32 [n, D].
        vectors: float16 or float32 [N, D], contiguous.
        places: int [n, k]; −1 is scored as place 0.

    Returns:
        The scores, all 0 where N is 0.
    """
    scores = np.zeros(places.shape, np.float32)
    if len(vectors) == 0 or scores.size == 0:
        return scores
    queries = np.ascontiguousarray(queries, np.float32)
    safe = np.maximum(places, 0).astype(np.int64)
    if vectors.dtype == np.float32:
        _products(scores, queries, vectors, safe)
        return scores
    step = max(1, _GATHERED // places.shape[1])
    room = np.empty((min(step, len(queries)) * places.shape[1], queries.shape[1]), np.float32)
    whole = as_tensor(vectors)
    for first in range(0, len(queries), step):
        rows = slice(first, first + step)
        chosen = torch.index_select(whole, 0, torch.from_numpy(safe[rows].reshape(-1)))
        there = room[: len(chosen)]
        torch.from_numpy(there).copy_(chosen)
        inside = np.arange(len(chosen)).reshape(safe[rows].shape)
        _products(scores[rows], queries[rows], there, inside)
    return scores


def _products(
    scores: np.ndarray, queries: np.ndarray, vectors: np.ndarray, places: np.ndarray
) -> None:
    faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]
        faiss.swig_ptr(scores),
        faiss.swig_ptr(queries),
        faiss.swig_ptr(vectors),
        faiss.swig_ptr(places),
        vectors.shape[1],
        *places.shape,
    )
