"""Everything that is kept for one contiguous range of labels, in plain Python.

A ``LabelRange`` holds the labels' documents (as a sparse matrix), takes the embeddings of all
training documents block by block, gives the sums that fit the proxies, and answers searches over
its proxies and its classifier rows. ``ranges.LocalRanges`` joins several in one process;
``cluster.label_shards`` puts each into a Ray actor. Both answer alike.

Labels without a training document have no proxy and are never shortlisted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_xml.bags import Bags, sum_bags, transposed_bags
from ray_xml.checkpoint import save_part
from ray_xml.hashing import hash_32
from ray_xml.label_search import Found, search_indexes
from ray_xml.partition import Range
from ray_xml.proxies import PairSums
from ray_xml.shortlist import LabelIndex
from ray_xml.sparse import Csr

_PAIRS = 16384  # (label, document) pairs handled at a time: bounds the scratch memory


@dataclass
class _Block:
    """One block of document embeddings and the pairs that fall in it."""

    embeddings: np.ndarray  # float16 [n, D]; may be a read-only view of shared memory
    labels: np.ndarray  # int64 [U], places in the range of the labels that occur
    bags: Bags  # U bags of document positions, weights 1


@dataclass
class _Pairs:
    """All (label, document) pairs of the range, and how they are dealt into parts."""

    key: int
    parts: int
    labels: Tensor  # int64 [pairs], places in the range
    documents: Tensor  # int64 [pairs]
    order: Tensor  # int64 [pairs], pair numbers sorted by part
    starts: Tensor  # int64 [parts + 1], where each part begins in ``order``


class LabelRange:
    """The labels low..high: their documents, proxies, classifier rows and indexes."""

    def __init__(
        self, label_range: Range, labels: Csr, *, threads: int | None = None, device: str = "cpu"
    ) -> None:
        """
        Args:
            label_range: (low, high).
            labels: [N, L] true labels of the documents that train, in the order in which their
                embeddings will come.
            threads: CPU threads for torch and FAISS; None leaves them alone.
            device: where sums are computed.
        """
        if threads is not None:
            import faiss

            torch.set_num_threads(threads)
            faiss.omp_set_num_threads(threads)
        self.low, self.high = label_range
        self.device = torch.device(device)
        self._documents = labels.columns(self.low, self.high)
        counts = self._documents.column_counts()
        self._active = np.flatnonzero(counts)
        self._counts = torch.from_numpy(counts[self._active]).to(self.device)
        place = np.full(self.high - self.low, -1, np.int32)
        place[self._active] = np.arange(len(self._active), dtype=np.int32)
        self._documents = Csr(
            self._documents.offsets, place[self._documents.ids], None, len(self._active)
        )
        self._blocks: dict[int, _Block] = {}
        self._pairs: _Pairs | None = None
        self._centroids: Tensor | None = None
        self.cycle = -1
        self._proxies: LabelIndex | None = None
        self._rows: LabelIndex | None = None
        self._new_rows: np.ndarray | None = None

    # ---- embeddings in, proxies fitted -------------------------------------------------------

    def begin_cycle(self, cycle: int) -> None:
        """Forgets the embeddings and proxies of earlier cycles."""
        self.cycle = cycle
        self._blocks.clear()
        self._centroids = self._proxies = None

    def add_block(self, cycle: int, first: int, embeddings: np.ndarray) -> None:
        """Takes the embeddings of documents first..first+n, float16 [n, D]."""
        assert cycle == self.cycle, f"block of cycle {cycle} reached cycle {self.cycle}"
        labels, bags = transposed_bags(self._documents.slice(first, first + len(embeddings)))
        self._blocks[first] = _Block(embeddings, labels, bags.to(self.device))

    def pair_sums(self, affine: Tensor) -> PairSums:
        """Sums over the range's pairs under g(c) = affine · [c; 1] (see ``proxies.PairSums``)."""
        centroids = self._get_centroids()
        mapped = self._map(affine)
        weight_sums = torch.zeros(len(centroids), dtype=torch.float64, device=self.device)
        moments = torch.zeros_like(centroids)
        loss = 0.0
        for block, z_nD in self._each_block():
            weights, losses = self._pair_weights(block, z_nD, mapped)
            loss += float(losses.sum(dtype=torch.float64))
            places = torch.from_numpy(block.labels).to(self.device)
            moments[places] += sum_bags(z_nD, block.bags._replace(weights=weights))
            ones = torch.ones(len(z_nD), 1, device=self.device)
            sums = sum_bags(ones, block.bags._replace(weights=weights))
            weight_sums[places] += sums[:, 0].double()
        # Summed in float64 so that the order of labels and ranges leaves no trace in g.
        extended = F.pad(centroids, (0, 1), value=1.0).double()
        gram = (extended * weight_sums[:, None]).t() @ extended
        cross = extended.t() @ moments.double()
        return PairSums(gram.cpu(), cross.cpu(), loss, self._documents.nnz)

    def pair_gradient(self, affine: Tensor, key: int, part: int, parts: int) -> tuple[Tensor, int]:
        """Gradient of Σ log(1 + ‖g(c) − z‖²) over this range's pairs in part ``part``.

        A pair's part is a hash of its label and document, so it does not depend on the ranges.
        """
        pairs = self._pairs_by_part(key, parts)
        chosen = pairs.order[pairs.starts[part] : pairs.starts[part + 1]]
        places, documents = pairs.labels[chosen], pairs.documents[chosen]
        centroids = self._get_centroids()[places]
        extended = F.pad(centroids, (0, 1), value=1.0)
        # Mapping the pairs' centroids alone: a part is far smaller than the range.
        mapped = extended.double() @ affine.to(self.device).t()
        z_PD = torch.from_numpy(self._gather(documents.numpy())).to(self.device).double()
        residual = mapped - z_PD
        weighted = residual * (2.0 / (1.0 + residual.square().sum(1, keepdim=True)))
        return (weighted.t() @ extended.double()).cpu(), len(chosen)

    def set_proxies(self, affine: Tensor) -> None:
        """Proxies g(c_l) of unit length, indexed."""
        proxies = F.normalize(self._map(affine), dim=1)
        self._proxies = LabelIndex(self.labels, proxies.cpu().numpy())

    # ---- classifier rows ---------------------------------------------------------------------

    def add_rows(self, first: int, weight: np.ndarray, bias: np.ndarray) -> None:
        """Takes classifier rows first..first+n: float32 [n, D] and [n]."""
        if self._new_rows is None:
            self._new_rows = np.zeros((self.high - self.low, weight.shape[1] + 1), np.float32)
        into = slice(first - self.low, first - self.low + len(weight))
        self._new_rows[into, :-1], self._new_rows[into, -1] = weight, bias

    def index_rows(self) -> None:
        """Indexes the rows taken since the last call, the bias as an extra dimension."""
        assert self._new_rows is not None, "no classifier rows were added"
        self._rows = LabelIndex(self.labels, self._new_rows[self._active])
        self._new_rows = None

    # ---- answers -----------------------------------------------------------------------------

    @property
    def labels(self) -> np.ndarray:
        """int32: the range's labels that have documents."""
        return (self._active + self.low).astype(np.int32)

    def proxies(self) -> np.ndarray:
        """float32 [high − low, D]: unit proxies, zero for labels without documents."""
        assert self._proxies is not None, "proxies were not fitted"
        whole = np.zeros((self.high - self.low, self._proxies.dim), np.float32)
        whole[self._active] = self._proxies.vectors
        return whole

    def search(
        self,
        embeddings: np.ndarray,
        k: int,
        sources: tuple[str, ...],
        both_scores: bool,
        given: np.ndarray | None = None,
    ) -> Found:
        """The k best labels of this range for each document, from each source.

        Args:
            embeddings: float16 or float32 [n, D].
            both_scores: fill in the score of the source that did not name the label, too.
            given: int32 [n, m], further labels to score, of any range.
        """
        z_nD = embeddings.astype(np.float32)
        return search_indexes(z_nD, k, sources, self._proxies, self._rows, both_scores, given)

    def save_proxies(self, folder: Path, number: int) -> None:
        """Writes the range's proxies into a checkpoint being made."""
        save_part(folder, "proxies", number, (self.low, self.high), {"proxies": self.proxies()})

    # ---- inside ------------------------------------------------------------------------------

    def _each_block(self) -> Iterator[tuple[_Block, Tensor]]:
        for _, block in sorted(self._blocks.items()):
            if len(block.labels):
                yield block, torch.from_numpy(block.embeddings.astype(np.float32)).to(self.device)

    def _pairs_by_part(self, key: int, parts: int) -> _Pairs:
        """All pairs sorted by part; kept, since an epoch asks for one part after another."""
        if self._pairs is None or (self._pairs.key, self._pairs.parts) != (key, parts):
            labels = torch.from_numpy(self._documents.ids.astype(np.int64))
            documents = torch.from_numpy(self._documents.row_of_entry())
            numbers = torch.from_numpy(self._active)[labels] + self.low
            part = hash_32(key, hash_32(key, documents) * 1_000_003 + numbers) % parts
            sorted_parts, order = torch.sort(part, stable=True)
            starts = torch.searchsorted(sorted_parts, torch.arange(parts + 1))
            self._pairs = _Pairs(key, parts, labels, documents, order, starts)
        return self._pairs

    def _gather(self, documents: np.ndarray) -> np.ndarray:
        """float16 [n, D]: embeddings of some documents, from whichever blocks hold them."""
        firsts = np.array(sorted(self._blocks))
        holder = np.searchsorted(firsts, documents, side="right") - 1
        out = np.empty((len(documents), self._get_centroids().shape[1]), np.float16)
        for number in np.unique(holder):
            rows = np.flatnonzero(holder == number)
            first = int(firsts[number])
            out[rows] = self._blocks[first].embeddings[documents[rows] - first]
        return out

    def _get_centroids(self) -> Tensor:
        if self._centroids is None:
            covered = sum(len(block.embeddings) for block in self._blocks.values())
            assert covered == self._documents.num_rows, (
                f"{covered} of {self._documents.num_rows} document embeddings have arrived"
            )
            dim = next(iter(self._blocks.values())).embeddings.shape[1]
            sums = torch.zeros(len(self._active), dim, device=self.device)
            for block, z_nD in self._each_block():
                sums[torch.from_numpy(block.labels).to(self.device)] += sum_bags(z_nD, block.bags)
            self._centroids = sums / self._counts[:, None]
        return self._centroids

    def _map(self, affine: Tensor) -> Tensor:
        """float32 [labels, D]: g of every centroid, worked out in float64 (see ``pair_sums``)."""
        affine = affine.to(self.device)
        mapped = self._get_centroids().double() @ affine[:, :-1].t() + affine[:, -1]
        return mapped.float()

    def _pair_weights(self, block: _Block, z_nD: Tensor, mapped: Tensor) -> tuple[Tensor, Tensor]:
        """IRLS weight and loss of every pair of the block, float32 [pairs] each."""
        places = torch.from_numpy(block.labels).to(self.device)
        label_of = places.repeat_interleave(_bag_sizes(block.bags))
        distances = torch.empty(len(label_of), device=self.device)
        for begin in range(0, len(label_of), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            difference = mapped[label_of[part]] - z_nD[block.bags.ids[part]]
            distances[part] = difference.square_().sum(1)
        return 1.0 / (1.0 + distances), torch.log1p(distances)


def _bag_sizes(bags: Bags) -> Tensor:
    ends = torch.cat([bags.offsets[1:], bags.offsets.new_tensor([len(bags.ids)])])
    return ends - bags.offsets
