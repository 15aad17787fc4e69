"""Candidates from compressed vectors: what an approximate label index searches before it refines.

Both kinds keep each vector as 4-bit codes of its pairs of numbers (product quantisation: Jégou,
Douze, Schmid, TPAMI 2011), a quarter of a byte a number, scanned in registers ("fast scan": André,
Kermarrec, Le Scouarnec, VLDB 2015). ``pq`` scans all of them; ``ivf`` deals the vectors to about
√N lists by direction, encodes what is left beside the list's centre, and scans the lists whose
centres score best.

The mean of all vectors is taken off first. It adds the same to all scores of a query, so it leaves
their order alone, and without it the lists part vectors better: classifier rows share a bias.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import faiss
import numpy as np

from ray_xml.pair_scores import widen, widened_blocks

FEWEST = 1024  # vectors that can be trained on; fewer are searched exactly
_SAMPLE = 65_536  # vectors trained on, unless there are so many lists that it takes more
_SEED = 0
_QUERIES = 1024  # searched at a time: bounds the candidates held
_GPU_MOST = 2048  # the largest k of FAISS on a GPU


def beside_bytes(count: int, dim: int, kind: str) -> int:
    """Bytes that a kind keeps beside ``count`` vectors: codes and, under ``ivf``, the vectors'
    numbers and the lists' centres. FAISS lets lists grow by doubling: half as much again."""
    held = count * (-(-dim // 2) // 2)
    if kind != "ivf":
        return held
    return (held + 8 * count) * 3 // 2 + 4 * dim * _lists(count)


def training_bytes(count: int, dim: int) -> int:
    """Bytes of the sample that an index is trained on: as it is taken, and without its mean."""
    return 2 * 4 * dim * _sample(count)


def _lists(count: int) -> int:
    return max(1, round(math.sqrt(count)))


def _sample(count: int) -> int:
    return min(count, max(_SAMPLE, 40 * _lists(count)))


class CoarseSearch:
    """Scores from codes: of the right size, but to be refined."""

    def __init__(
        self,
        vectors: np.ndarray,
        kind: Literal["pq", "ivf"],
        probes: int,
        *,
        gpu: bool = False,
        numbers: int = 2,
    ) -> None:
        """Trains on a sample of ``vectors``, float16 or float32 [N, D], and encodes them all.

        Args:
            probes: lists scanned for a query.
            gpu: hold the lists of ``ivf`` on GPU 0, in float16 since FAISS has no fast scan there.
            numbers: that share a 4-bit code.
        """
        count, self._dim = vectors.shape
        assert count >= FEWEST, f"{count} vectors are too few to train on"
        self._codes = -(-self._dim // numbers)  # a vector's
        self._width = self._codes * numbers
        lists, size = _lists(count), _sample(count)
        chosen = np.random.default_rng(_SEED).choice(count, size, replace=False)
        sample = widen(vectors[np.sort(chosen)], np.empty((size, self._dim), np.float32))
        self._mean = sample.mean(0)
        self.most = _GPU_MOST if gpu else 2**31
        self._centres: Any = None
        self._index: Any = self._empty(kind, lists, gpu)
        self._index.train(self._padded(sample - self._mean))
        del sample
        for _, block in widened_blocks(vectors):
            self._index.add(self._padded(block - self._mean))
        if kind == "ivf":
            self.probes = probes

    def _empty(self, kind: Literal["pq", "ivf"], lists: int, gpu: bool) -> Any:
        product = faiss.METRIC_INNER_PRODUCT
        if kind == "pq":
            return faiss.IndexPQFastScan(self._width, self._codes, 4, product)
        self._centres = faiss.IndexFlatIP(self._width)  # FAISS keeps a pointer to it
        if gpu:
            self._resources = faiss.StandardGpuResources()
            plain = faiss.IndexIVFScalarQuantizer(
                self._centres, self._width, lists, faiss.ScalarQuantizer.QT_fp16, product
            )
            return faiss.index_cpu_to_gpu(self._resources, 0, plain)
        index = faiss.IndexIVFPQFastScan(self._centres, self._width, lists, self._codes, 4, product)
        index.by_residual = True
        return index

    @property
    def probes(self) -> int:
        """Lists scanned for a query, under ``ivf``; may be set."""
        return int(self._index.nprobe)

    @probes.setter
    def probes(self, probes: int) -> None:
        self._index.nprobe = min(probes, self._index.nlist)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, numbers of the vectors in lists, and centres."""
        index = self._index
        held = index.ntotal * index.code_size
        if self._centres is not None:
            held += index.ntotal * 8 + index.nlist * self._width * 4
        return int(held)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """int64 [n, k]: places of the k best of each float32 [n, D] query by their codes, in no
        order that counts; −1 behind the last, where the lists scanned hold fewer."""
        if not len(queries):
            return np.zeros((0, k), np.int64)
        parts = [
            self._index.search(self._padded(queries[first : first + _QUERIES]), k)[1]
            for first in range(0, len(queries), _QUERIES)
        ]
        return np.concatenate(parts)

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        """``rows`` with zeros behind each up to whole codes."""
        if self._width == self._dim:
            return np.ascontiguousarray(rows, np.float32)
        return np.pad(rows, ((0, 0), (0, self._width - self._dim)))
