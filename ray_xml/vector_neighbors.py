"""Neighbours of documents that are dense vectors, searched for exactly."""

from __future__ import annotations

import numpy as np

from ray_xml.exact_search import BlockSearch
from ray_xml.sparse import Csr

_BLOCK = 8192  # documents whose vectors are taken over at a time


class VectorNeighbors:
    """Documents by cosine similarity.

    Attributes:
        vectors: float16 [N, V], of unit length; may be memory-mapped.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self._search = BlockSearch(vectors)

    @staticmethod
    def build(features: Csr) -> VectorNeighbors:
        """Of documents [N, V], all of whose features are dense columns."""
        vectors = np.empty((features.num_rows, features.num_columns), np.float16)
        for first, block in features.blocks(_BLOCK):
            vectors[first : first + block.num_rows] = _unit_rows(block)
        return VectorNeighbors(vectors)

    def nearest(self, queries: Csr, k: int, least: float) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [n, k], float32 [n, k]): the k nearest of each document [n, V] and their
        similarities, best first; those below ``least`` are 0."""
        alike, places = self._search.search(_unit_rows(queries), k)
        return np.maximum(places, 0), np.where(alike < least, np.float32(0), alike)


def _unit_rows(rows: Csr) -> np.ndarray:
    """float32 [n, V]: the rows as a matrix, each of unit length or zero."""
    found = rows.to_scipy().toarray()
    lengths = np.sqrt(np.einsum("nd,nd->n", found, found))
    return np.asarray(found / np.maximum(lengths, np.float32(1e-12))[:, None], np.float32)
