"""Nearest labels: one FAISS index over a label range, and the merge of several ranges' answers.

Scores are inner products, larger is better; with unit vectors on both sides they are cosines.
Ties go to the lower label number, so that the number of ranges does not change a shortlist.

FAISS by itself grants neither: a heap keeps an arbitrary one of several equal scores, and the
matrix products behind a large search round equal vectors differently by where they lie in the
index (labels with the same documents have equal proxies, so this is common). So a search fetches
a few candidates more, and their order is that of scores worked out pair by pair, which depend on
the pair alone.
"""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
from pydantic import Field

from ray_xml.config import Section

_SPARE = 16  # candidates fetched beyond k, so that the cut can be made on exact scores
_MOST = 1024  # more are fetched for rows whose cut falls among near-equal scores, up to this


class ShortlistConfig(Section):
    """Which labels a document is compared with.

    Attributes:
        size: labels from each source; None is 100, or all labels where there are fewer. 0 leaves
            the dense search to training: predictions are made among the neighbours' labels.
        source: ``proxy`` (cosine to label proxies), ``classifier`` (the classifier's own score)
            or ``both``.
    """

    size: int | None = Field(None, ge=0)
    source: Literal["proxy", "classifier", "both"] = "proxy"
    storage: Literal["auto", "float32", "float16"] = "auto"

    @property
    def vector_type(self) -> type[np.floating]:
        """The type of indexed vectors."""
        return np.float16 if self.storage == "float16" else np.float32

    @property
    def listed(self) -> int:
        """``size`` once it is known (``RunConfig.resolved``)."""
        assert self.size is not None, "the config was not resolved against its data"
        return self.size

    @property
    def width(self) -> int:
        """Labels on a shortlist, over all sources."""
        return self.listed * len(self.sources)

    @property
    def sources(self) -> tuple[str, ...]:
        if self.size == 0:
            return ()
        return ("proxy", "classifier") if self.source == "both" else (self.source,)


class LabelIndex:
    """Exact maximum-inner-product search over the vectors of some labels.

    Attributes:
        labels: int32 [n], the label number of each indexed vector, ascending.
    """

    def __init__(
        self, labels: np.ndarray, vectors: np.ndarray, config: ShortlistConfig | None = None
    ) -> None:
        """Indexes ``vectors``, float32 [n, D]; they are kept once, inside the index.

        The index lies on the GPU where FAISS finds one.
        """
        self.labels = labels
        self.dim = vectors.shape[1]
        index = faiss.IndexFlatIP(self.dim)
        index.add(np.ascontiguousarray(vectors, np.float32))
        self._index = index
        self._search_index: faiss.Index = index
        self._gpu = getattr(faiss, "get_num_gpus", lambda: 0)() > 0
        if self._gpu:
            self._resources = faiss.StandardGpuResources()
            self._search_index = faiss.index_cpu_to_gpu(self._resources, 0, index)
        longest = float(np.einsum("nd,nd->n", self.vectors, self.vectors).max(initial=0.0)) ** 0.5
        # Far above the rounding of a sum of D products, far below what tells labels apart.
        self._rounding = 8.0 * float(np.finfo(np.float32).eps) * self.dim**0.5 * longest

    @property
    def vectors(self) -> np.ndarray:
        """float32 [n, D]: the indexed vectors, a view of the index's own memory."""
        if len(self.labels) == 0:
            return np.zeros((0, self.dim), np.float32)
        view = faiss.rev_swig_ptr(self._index.get_xb(), len(self.labels) * self.dim)
        return np.asarray(view).reshape(len(self.labels), self.dim)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels of each query.

        Args:
            queries: float32 [n, D].

        Returns:
            (places int32 [n, k] within ``labels``, −1 behind the last; scores float32 [n, k],
            −inf behind the last), best first.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        places = np.full((len(queries), k), -1, np.int32)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        total = len(self.labels)
        width, fetched = min(k, total), min(k + _SPARE, total)
        left = np.arange(len(queries) if total else 0)
        while len(left):
            asked = queries[left] if len(left) < len(queries) else queries
            rough, found = self._search_index.search(asked, fetched)
            best = best_k(found, self.scores_at(asked, found), width)
            places[left, :width], scores[left, :width] = best
            if fetched == total or fetched >= _MOST:
                break
            # What was not fetched scores at most rough[:, -1]: below the cut by more than
            # rounding can hide, or the row is asked again.
            norms = np.sqrt(np.einsum("nd,nd->n", asked, asked))
            left = left[rough[:, width - 1] - rough[:, -1] <= norms * self._rounding]
            fetched = min(4 * fetched, total, _MOST)
        return places, scores

    def scores_at(self, queries: np.ndarray, places: np.ndarray) -> np.ndarray:
        """float32 [n, k]: inner products of each query with the vectors at its ``places``.

        A score depends on the two vectors alone, not on where or beside what they lie. Where a
        place is −1 it is that of place 0, and 0 where nothing is indexed.
        """
        scores = np.zeros(places.shape, np.float32)
        if len(self.labels) and scores.size:
            queries = np.ascontiguousarray(queries, np.float32)
            safe = np.maximum(places, 0).astype(np.int64)
            faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]
                faiss.swig_ptr(scores),
                faiss.swig_ptr(queries),
                self._index.get_xb(),
                faiss.swig_ptr(safe),
                self.dim,
                *places.shape,
            )
        return scores


def best_k(
    labels: np.ndarray, scores: np.ndarray, k: int, *extra: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The k best of each row, best first, ties to the lower label; the merge of several lists.

    Args:
        labels: int [n, m], −1 for none. Labels of a row are distinct, but for −1.
        scores: float [n, m].
        extra: further [n, m] arrays that follow the same selection.

    Returns:
        (labels, scores, *extra), each [n, min(k, m)]; −1 and −inf where a row has fewer.
    """
    scores = np.where(labels < 0, -np.inf, scores).astype(np.float32)
    # One int64 sorts by falling score, then by rising label: a float's bits, with the sign
    # handled, order as the floats do.
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    keys = (-ordered << 32) + labels.astype(np.int64)
    width = min(k, labels.shape[1])
    if width < labels.shape[1]:
        chosen = np.argpartition(keys, width - 1, axis=1)[:, :width]
    else:
        chosen = np.broadcast_to(np.arange(width), labels.shape)
    inner = np.argsort(np.take_along_axis(keys, chosen, 1), axis=1)
    chosen = np.take_along_axis(chosen, inner, 1)
    return tuple(np.take_along_axis(part, chosen, 1) for part in (labels, scores, *extra))
