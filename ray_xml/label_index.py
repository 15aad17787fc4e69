"""Nearest labels: maximum-inner-product search over the vectors of a label range.

Scores are inner products, larger is better; with unit vectors on both sides they are cosines.
Ties go to the lower label number, so that the number of ranges does not change a shortlist.

No search by itself grants this: a heap keeps an arbitrary one of several equal scores, and the
matrix products behind a large search round equal vectors differently by where they lie in the
index (labels with the same documents have equal proxies, so this is common). So a search fetches
a few candidates more, and their order is that of scores worked out pair by pair, which depend on
the pair alone. The approximate kinds fetch several times k and are refined by the same scores.

The vectors are held once. A kind keeps at most compressed codes beside them (docs/scaling.md has
the figures that the choice of kind goes by).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from ray_xml.best_k import best_k
from ray_xml.coarse_search import FEWEST, CoarseSearch
from ray_xml.config import Section
from ray_xml.errors import ConfigError
from ray_xml.exact_search import BlockSearch, Search, exact_search, faiss_has_gpu
from ray_xml.pair_scores import longest, pair_scores

Kind = Literal["flat", "pq", "ivf"]

_SPARE = 16  # candidates fetched beyond k, so that the cut can be made on exact scores
_MOST = 1024  # more are fetched for rows whose cut falls among near-equal scores, up to this
_MANY = 200_000  # vectors above which float16 storage and approximate search set in
_QUERIES = 1024  # refined at a time: bounds the candidates held


class IndexConfig(Section):
    """How the vectors of a label range are held and searched.

    Attributes:
        index: ``flat`` is exact; ``pq`` scans compressed codes of all vectors; ``ivf`` scans those
            of the lists nearest to the query; ``auto`` is flat up to 200,000 labels in a range
            and on a GPU, else ivf. Fewer than 1,024 labels are always searched flat.
        storage: of the vectors; ``auto`` is float16 above 200,000 labels in a range.
        refine: an approximate kind fetches this many times the labels asked for, and the exact
            scores of their vectors decide.
        probes: lists of ``ivf`` scanned for a query, of about √(labels in the range).
        recall_floor: least share of the exact best labels that an approximate kind must find on a
            sample of queries; below it ``ivf`` becomes ``pq``, and that exact. 0 never does.
        index_sample: queries in that sample.
    """

    index: Literal["auto", "flat", "pq", "ivf"] = "auto"
    storage: Literal["auto", "float32", "float16"] = "auto"
    refine: int = Field(6, ge=1)
    probes: int = Field(256, ge=1)
    recall_floor: float = Field(0.95, ge=0, le=1)
    index_sample: int = Field(256, ge=1)

    def dtype(self, count: int) -> np.dtype[np.float16] | np.dtype[np.float32]:
        """What ``count`` vectors of a range are to be held in."""
        half = self.storage == "float16" or (self.storage == "auto" and count > _MANY)
        return np.dtype(np.float16) if half else np.dtype(np.float32)

    def kind(self, count: int, gpu: bool) -> Kind:
        """The kind of index over ``count`` vectors."""
        if count < FEWEST:
            return "flat"
        if self.index == "auto":
            return "ivf" if count > _MANY and not gpu else "flat"
        return self.index


@dataclass(frozen=True)
class IndexState:
    """What an index of a range turned out to be.

    Attributes:
        source: ``proxy`` or ``classifier``.
        kind: in use.
        tried: the approximate kinds tried in this refresh, each with the share of the exact best
            labels that it finds on a sample of documents, within the range. The last one is in
            use if it reaches ``shortlist.recall_floor``.
        nbytes: bytes of the vectors and of what is kept beside them.
    """

    source: str
    kind: Kind
    tried: dict[Kind, float]
    nbytes: int

    @property
    def recall(self) -> float:
        """That of the kind in use."""
        return 1.0 if self.kind == "flat" else self.tried.get(self.kind, 1.0)


class LabelIndex:
    """Maximum-inner-product search over the vectors of some labels.

    Attributes:
        labels: int32 [n], the label number of each indexed vector, ascending.
        vectors: float16 or float32 [n, D], the vectors themselves: the array that was handed in.
        kind: of the index in use.
    """

    def __init__(
        self,
        labels: np.ndarray,
        vectors: np.ndarray,
        config: IndexConfig | None = None,
        gpu: bool | None = None,
    ) -> None:
        """Indexes ``vectors``, which must not change any more. They are not copied.

        Args:
            labels: int32 [n], ascending.
            vectors: float16 or float32 [n, D], contiguous.
            config: None is the default.
            gpu: search on GPU 0: by FAISS where it was built for one, else by torch, which knows
                the flat kind alone. FAISS has no fast scan on a GPU, so there ``pq`` is flat and
                ``ivf`` keeps float16 codes. None takes the GPU that FAISS finds, if any.

        Raises:
            ConfigError: a GPU is asked for, and neither FAISS nor torch finds one.
        """
        assert vectors.dtype in (np.float16, np.float32), f"vectors are {vectors.dtype}"
        assert vectors.flags.c_contiguous, "the vectors are not contiguous"
        self.labels, self.vectors = labels, vectors
        config = config or IndexConfig()
        on_faiss = faiss_has_gpu()
        self._gpu = on_faiss if gpu is None else gpu
        if self._gpu and not on_faiss and not torch.cuda.is_available():
            raise ConfigError(
                "a label index is asked for on a GPU, but neither FAISS nor torch finds one; set "
                "resources.device=cpu"
            )
        self._plain = BlockSearch(vectors)
        self._exact: Search = self._plain
        self._coarse: CoarseSearch | None = None
        self.kind: Kind = "flat"
        self._longest = longest(vectors)
        self._refine = config.refine
        kind = config.kind(len(labels), self._gpu)
        if kind == "flat" or (self._gpu and (kind == "pq" or not on_faiss)):
            self._become_exact()
        else:
            self._become_coarse(kind, config.probes)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and of what is kept beside them."""
        beside = 0 if self._coarse is None else self._coarse.nbytes
        return int(self.vectors.nbytes + self._exact.nbytes + beside)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best labels of each query; under an approximate kind, of those that it finds.

        Args:
            queries: float32 [n, D].

        Returns:
            (places int32 [n, k] within ``labels``, −1 behind the last; scores float32 [n, k],
            −inf behind the last), best first.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if self._coarse is None or k > self._coarse.most:
            return self._search_exactly(queries, k)
        return self._search_coarsely(self._coarse, queries, k)

    def scores_at(self, queries: np.ndarray, places: np.ndarray) -> np.ndarray:
        """float32 [n, k]: inner products of each query with the vectors at its ``places``.

        A score depends on the two vectors alone, not on where or beside what they lie. Where a
        place is −1 it is that of place 0, and 0 where nothing is indexed.
        """
        return pair_scores(queries, self.vectors, places)

    def recall(self, queries: np.ndarray, k: int) -> float:
        """The share of the k best labels of ``queries``, float32 [n, D], that ``search`` finds.

        1 where there are none to be found.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        return self._recall(queries, self._search_exactly(queries, k)[0])

    def checked(self, queries: np.ndarray, k: int, floor: float) -> dict[Kind, float]:
        """Holds the kind in use against the exact search, and gives it up below ``floor``: lists
        for a scan of all codes, and that for the exact search.

        Args:
            queries: float32 [n, D], a sample of those to come.

        Returns:
            the recall of each approximate kind tried, in order; ``kind`` is the one that stays.
        """
        tried: dict[Kind, float] = {}
        if self._coarse is None:
            return tried
        queries = np.ascontiguousarray(queries, np.float32)
        exact = self._search_exactly(queries, k)[0]
        while self._coarse is not None:
            tried[self.kind] = self._recall(queries, exact)
            if tried[self.kind] >= floor:
                break
            if self.kind == "ivf" and not self._gpu:
                self._become_coarse("pq", 0)
            else:
                self._become_exact()
        return tried

    def _recall(self, queries: np.ndarray, exact: np.ndarray) -> float:
        found = self.search(queries, exact.shape[1])[0]
        pairs = zip(exact, found, strict=True)
        there = sum(int(np.isin(best[best >= 0], got).sum()) for best, got in pairs)
        return there / wanted if (wanted := int((exact >= 0).sum())) else 1.0

    def _become_coarse(self, kind: Literal["pq", "ivf"], probes: int) -> None:
        self._coarse = None  # the old codes go before the new ones come
        self.kind = kind
        self._coarse = CoarseSearch(self.vectors, kind, probes, gpu=self._gpu)

    def _become_exact(self) -> None:
        self.kind, self._coarse = "flat", None
        self._exact = exact_search(self.vectors, self._gpu)

    def _search_exactly(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        places, scores = _nothing(len(queries), k)
        total = len(self.labels)
        width, fetched = min(k, total), min(k + _SPARE, total)
        left = np.arange(len(queries) if width else 0)
        while len(left):
            asked = queries[left] if len(left) < len(queries) else queries
            exact = self._exact if fetched <= self._exact.most else self._plain
            rough, found = exact.search(asked, fetched)
            best = best_k(found, self.scores_at(asked, found), width)
            places[left, :width], scores[left, :width] = best
            if fetched == total or fetched >= _MOST:
                break
            # What was not fetched scores at most rough[:, -1]: below the cut by more than
            # rounding can hide, or the row is asked again.
            norms = np.sqrt(np.einsum("nd,nd->n", asked, asked))
            near = norms * (exact.rounding * self._longest)
            left = left[rough[:, width - 1] - rough[:, -1] <= near]
            fetched = min(4 * fetched, total, _MOST)
        return places, scores

    def _search_coarsely(
        self, coarse: CoarseSearch, queries: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        places, scores = _nothing(len(queries), k)
        width = min(k, len(self.labels))
        fetched = min(self._refine * k, len(self.labels), coarse.most)
        for first in range(0, len(queries) if width else 0, _QUERIES):
            rows = slice(first, first + _QUERIES)
            found = coarse.search(queries[rows], fetched)
            best = best_k(found, self.scores_at(queries[rows], found), width)
            places[rows, :width], scores[rows, :width] = best
        return places, scores


def _nothing(queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((queries, k), -1, np.int32), np.full((queries, k), -np.inf, np.float32)
