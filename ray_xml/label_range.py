"""Everything that is kept for one contiguous range of labels, in plain Python.

A ``LabelRange`` holds the labels' documents (as a sparse matrix), reads the embeddings of all
training documents from a file, gives the sums that fit the proxies, and answers searches over its
proxies and its classifier rows. ``ranges.LocalRanges`` joins several in one process;
``cluster.label_shards`` puts each into a Ray actor. Both answer alike.

What has the range's number of labels times D is held twice at most: one array that has the
centroids until proxies take their place, and one with the classifier rows. All else is worked out
chunk by chunk.

Labels without a training document have no proxy and are never shortlisted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ray_xml.checkpoint import save_part
from ray_xml.errors import StaleError
from ray_xml.hashing import hash_32
from ray_xml.heap import give_back
from ray_xml.label_index import IndexState, Kind
from ray_xml.label_pairs import each_chunk, row_sums
from ray_xml.label_search import Found, queries_of, search_indexes
from ray_xml.matrix_file import MatrixFile
from ray_xml.partition import Range
from ray_xml.proxies import PairSums
from ray_xml.range_state import RangeState, load_affine
from ray_xml.shortlist import LabelIndex, ShortlistConfig
from ray_xml.sparse import Rows

_LABELS = 16384  # labels mapped or copied at a time: bounds the scratch memory
_SAVED = 262_144  # labels of one part of a checkpoint
_CHOICE = 0x50C5  # key of the hash that chooses labels to fit to


@dataclass
class _Parts:
    """The pairs that g is fitted to, and how they are dealt into parts."""

    key: int
    parts: int
    labels: Tensor  # int64 [pairs], places among the active labels
    documents: Tensor  # int64 [pairs]
    order: Tensor  # int64 [pairs], pair numbers sorted by part
    starts: Tensor  # int64 [parts + 1], where each part begins in ``order``


class LabelRange:
    """The labels low..high: their documents, proxies, classifier rows and indexes.

    Attributes:
        low, high: the range.
        state: what it holds; None before the first cycle, and where ``bring`` failed.
    """

    def __init__(
        self,
        label_range: Range,
        labels: Rows,
        config: ShortlistConfig | None = None,
        *,
        fit_labels: int = 1 << 17,
        counts: np.ndarray | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        """
        Args:
            label_range: (low, high).
            labels: [N, L] true labels of the documents that train, in the order in which their
                embeddings lie in the file.
            config: of the indexes.
            fit_labels: labels, over all ranges, that g is fitted to, about, chosen by a hash.
            counts: int64 [L], documents of every label; None counts them.
            threads: CPU threads for torch and FAISS; None leaves them alone.
            device: where sums are computed.
        """
        if threads is not None:
            import faiss

            torch.set_num_threads(threads)
            faiss.omp_set_num_threads(threads)
        self.low, self.high = label_range
        self.device = torch.device(device)
        self._config = config or ShortlistConfig()
        counts = labels.column_counts() if counts is None else counts
        all_active = int(np.count_nonzero(counts))
        documents = labels.columns(self.low, self.high).transpose()
        self._active = np.flatnonzero(documents.counts)
        self._documents = documents.take(self._active)  # [active labels, N]
        self._fitted_to = self._chosen(min(1.0, fit_labels / max(all_active, 1)))
        everything = len(self._fitted_to) == len(self._active)
        self._fitted_pairs = (
            self._documents if everything else self._documents.take(self._fitted_to)
        )
        self.state: RangeState | None = None
        self._settled: dict[str, Kind] = {}  # the kind of index that reached the floor, by source
        self._z: Tensor | None = None  # float16 [N, D]
        self._vectors: np.ndarray | None = None  # [active, D]: centroids, then proxies
        self._parts: _Parts | None = None
        self._proxies: LabelIndex | None = None
        self._row_vectors: np.ndarray | None = None  # [active, D + 1]
        self._rows: LabelIndex | None = None
        give_back()

    # ---- from state to state -----------------------------------------------------------------

    def bring(self, state: RangeState) -> list[IndexState]:
        """Reads whatever it lacks of ``state``.

        Returns:
            what the indexes that it built turned out to be.

        Raises:
            StaleError: it holds a later cycle, or the files are gone or another cycle's.
        """
        held = self.state
        if held is not None and held.cycle > state.cycle:
            raise StaleError(
                f"labels {self.low}..{self.high} hold cycle {held.cycle}, but were asked for cycle "
                f"{state.cycle}"
            )
        self.state = None
        built: list[IndexState] = []
        try:
            if held is None or not state.extends(held):
                held = RangeState(state.cycle, state.embeddings)
                self.begin_cycle(state.embeddings)
            if state.affine is not None and held.affine is None:
                built.append(self.set_proxies(load_affine(state.affine, state.cycle)))
            if state.rows is not None and held.rows is None:
                built.append(self.index_rows(state.rows))
        except (FileNotFoundError, ValueError) as error:
            raise StaleError(
                f"labels {self.low}..{self.high} cannot get cycle {state.cycle} back: {error}"
            ) from error
        self.state = state
        return built

    # ---- embeddings in, proxies fitted -------------------------------------------------------

    def begin_cycle(self, file: MatrixFile) -> None:
        """Takes the embeddings of all documents from ``file``; forgets earlier ones."""
        expected = self._documents.num_columns
        assert file.rows == expected, f"{file.rows} embeddings of {expected} documents"
        self._proxies = self._rows = None
        self._z = torch.from_numpy(file.open())
        if self.device.type != "cpu":
            self._z = self._z.to(self.device)
        shape = (len(self._active), file.dim)
        if self._vectors is None or self._vectors.shape != shape:
            self._vectors = np.empty(shape, self._config.dtype(len(self._active)))
        for low, high, sums in row_sums(self._documents, self._take):
            counts = torch.from_numpy(self._documents.counts[low:high]).to(self.device)
            self._vectors[low:high] = (sums / counts[:, None]).cpu().numpy()

    def pair_sums(self, affine: Tensor) -> PairSums:
        """Sums over the pairs under g(c) = affine · [c; 1] (see ``proxies.PairSums``)."""
        dim, pairs = affine.shape[0], self._fitted_pairs
        # Summed in float64 so that the order of labels and ranges leaves no trace in g.
        gram = torch.zeros(dim + 1, dim + 1, dtype=torch.float64, device=self.device)
        cross = torch.zeros(dim + 1, dim, dtype=torch.float64, device=self.device)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for chunk in each_chunk(pairs, self._take):
            centroids = self._centroids(self._fitted_to[chunk.low : chunk.high])
            difference = _map(centroids, affine)[chunk.label_of] - chunk.embeddings
            distances = difference.square_().sum(1)
            weights = 1.0 / (1.0 + distances)
            loss += torch.log1p(distances).sum(dtype=torch.float64)
            weight_sums = torch.zeros(len(centroids), dtype=torch.float64, device=self.device)
            weight_sums.index_add_(0, chunk.label_of, weights.double())
            extended = F.pad(centroids, (0, 1), value=1.0).double()
            gram += (extended * weight_sums[:, None]).t() @ extended
            cross += extended.t() @ chunk.sums(weights).double()
        return PairSums(gram.cpu(), cross.cpu(), float(loss), pairs.nnz)

    def pair_gradient(self, affine: Tensor, key: int, part: int, parts: int) -> tuple[Tensor, int]:
        """Gradient of Σ log(1 + ‖g(c) − z‖²) over this range's pairs in part ``part``.

        A pair's part is a hash of its label and document, so it does not depend on the ranges.
        """
        dealt = self._dealt(key, parts)
        chosen = dealt.order[dealt.starts[part] : dealt.starts[part + 1]]
        centroids = self._centroids(dealt.labels[chosen].numpy())
        extended = F.pad(centroids, (0, 1), value=1.0).double()
        # Mapping the pairs' centroids alone: a part is far smaller than the range.
        mapped = extended @ affine.to(self.device).t()
        residual = mapped - self._take(dealt.documents[chosen].numpy()).double()
        weighted = residual * (2.0 / (1.0 + residual.square().sum(1, keepdim=True)))
        return (weighted.t() @ extended).cpu(), len(chosen)

    def set_proxies(self, affine: Tensor) -> IndexState:
        """Proxies g(c_l) of unit length take the place of the centroids, and are indexed."""
        assert self._vectors is not None, "no cycle was begun"
        for low in range(0, len(self._active), _LABELS):
            places = np.arange(low, min(low + _LABELS, len(self._active)))
            mapped = _map(self._centroids(places), affine)
            self._vectors[places] = F.normalize(mapped, dim=1).cpu().numpy()
        give_back()
        self._proxies = self._index("proxy", self._vectors)
        return self._checked("proxy", self._proxies)

    # ---- classifier rows ---------------------------------------------------------------------

    def index_rows(self, file: MatrixFile) -> IndexState:
        """Takes its labels' rows from ``file``, biases as an extra dimension, and indexes them."""
        whole, shape = file.open(), (len(self._active), file.dim)
        self._rows = None
        if self._row_vectors is None or self._row_vectors.shape != shape:
            self._row_vectors = np.empty(shape, self._config.dtype(len(self._active)))
        for first in range(0, len(self._active), _LABELS):
            part = slice(first, first + _LABELS)
            self._row_vectors[part] = whole[self._active[part] + self.low]
        self._rows = self._index("classifier", self._row_vectors)
        return self._checked("classifier", self._rows)

    # ---- answers -----------------------------------------------------------------------------

    @property
    def labels(self) -> np.ndarray:
        """int32: the range's labels that have documents."""
        return (self._active + self.low).astype(np.int32)

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
            embeddings: float16 or float32 [n, D]; or int64 [n], documents of the embedding file.
            both_scores: fill in the score of the source that did not name the label, too.
            given: int32 [n, m], further labels to score, of any range.
        """
        if embeddings.ndim == 1:
            z_nD = self._take(embeddings).cpu().numpy()
        else:
            z_nD = embeddings.astype(np.float32)
        return search_indexes(z_nD, k, sources, self._proxies, self._rows, both_scores, given)

    def save_proxies(self, folder: Path, number: int) -> None:
        """Writes the range's unit proxies into a checkpoint, zeros for labels without documents."""
        assert self._proxies is not None, "proxies were not fitted"
        assert self._vectors is not None
        for piece, low in enumerate(range(0, self.high - self.low, _SAVED)):
            high = min(low + _SAVED, self.high - self.low)
            begin, end = np.searchsorted(self._active, (low, high))
            whole = np.zeros((high - low, self._vectors.shape[1]), self._vectors.dtype)
            whole[self._active[begin:end] - low] = self._vectors[begin:end]
            held = (self.low + low, self.low + high)
            tensors = {"proxies": torch.from_numpy(whole)}
            save_part(folder, "proxies", 1000 * number + piece, held, tensors)

    # ---- inside ------------------------------------------------------------------------------

    def _index(self, source: str, vectors: np.ndarray) -> LabelIndex:
        # Where FAISS was built without a GPU, torch searches on this one.
        on_gpu = self.device.type == "cuda"
        config = self._config.index_for(source)
        if source in self._settled:
            config = config.model_copy(update={"index": self._settled[source]})
        return LabelIndex(self.labels, vectors, config, on_gpu)

    def _checked(self, source: str, index: LabelIndex) -> IndexState:
        """Measures the index on a sample of the documents, and gives up one that misses much."""
        tried: dict[Kind, float] = {}
        if source in self._config.sources and index.kind != "flat":
            count = self._documents.num_columns
            sample = np.linspace(0, count - 1, min(count, self._config.index_sample))
            unit_nD, extended = queries_of(self._take(sample.astype(np.int64)).cpu().numpy())
            queries = unit_nD if source == "proxy" else extended
            tried = index.checked(queries, self._config.listed, self._config.recall_floor)
            # What missed the floor once is not built again in this run.
            self._settled[source] = index.kind
        give_back()
        return IndexState(source, index.kind, tried, index.nbytes)

    def _chosen(self, share: float) -> np.ndarray:
        """int64: places of the active labels that g is fitted to."""
        drawn = hash_32(_CHOICE, torch.from_numpy(self._active + self.low)).numpy()
        return np.flatnonzero(drawn < share * 2**32)

    def _take(self, documents: np.ndarray) -> Tensor:
        """float32 [n, D]: embeddings of some documents."""
        assert self._z is not None, "no cycle was begun"
        places = torch.from_numpy(documents.astype(np.int64)).to(self.device)
        return self._z.index_select(0, places).float()

    def _centroids(self, places: np.ndarray) -> Tensor:
        """float32 [n, D]: centroids of some active labels."""
        assert self._vectors is not None, "no cycle was begun"
        assert self._proxies is None, "proxies took the place of the centroids"
        return torch.from_numpy(self._vectors[places].astype(np.float32)).to(self.device)

    def _dealt(self, key: int, parts: int) -> _Parts:
        """The pairs sorted by part; kept, since an epoch asks for one part after another."""
        if self._parts is None or (self._parts.key, self._parts.parts) != (key, parts):
            pairs = self._fitted_pairs
            labels = torch.from_numpy(self._fitted_to[pairs.row_of_entry()])
            documents = torch.from_numpy(pairs.ids.astype(np.int64))
            numbers = torch.from_numpy(self._active)[labels] + self.low
            part = hash_32(key, hash_32(key, documents) * 1_000_003 + numbers) % parts
            sorted_parts, order = torch.sort(part, stable=True)
            starts = torch.searchsorted(sorted_parts, torch.arange(parts + 1))
            self._parts = _Parts(key, parts, labels, documents, order, starts)
        return self._parts


def _map(centroids: Tensor, affine: Tensor) -> Tensor:
    """float32 [n, D]: g of the centroids, worked out in float64: the same in any company."""
    affine = affine.to(centroids.device)
    return (centroids.double() @ affine[:, :-1].t() + affine[:, -1]).float()
