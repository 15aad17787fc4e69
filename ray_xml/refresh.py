"""What happens between two stretches of classifier training: a refresh.

    encode      every training document, in blocks of fixed size, on the worker that owns it
    proxies     fitted to those embeddings over all label ranges
    validation  recall of the candidates, the fit of the score, the metrics

Block borders do not depend on the number of workers, so a block's arithmetic is the same
whoever does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ray_xml import blend, proxies
from ray_xml.blend import Blend
from ray_xml.classifier import Classifier
from ray_xml.encoder import Encoder
from ray_xml.exchange import Exchange
from ray_xml.label_index import IndexState
from ray_xml.label_search import Found
from ray_xml.lexical import Answer, Lexical
from ray_xml.matrix_file import MatrixFile
from ray_xml.metrics import MetricSums
from ray_xml.pair_scores import torch_type
from ray_xml.range_state import RangeState, save_affine
from ray_xml.ranges import Block, Ranges
from ray_xml.scoring import candidates, top_k
from ray_xml.shortlist import ShortlistConfig
from ray_xml.sparse import Csr, Rows
from ray_xml.truth import Truth

BLOCK = 2048  # documents encoded and searched at a time
FITTED_TO = 8192  # validation documents that the score is fitted to, about
_ROW_BLOCK = 65536  # classifier rows sent at a time

Progress = Callable[[str, int, int], None]  # phase, documents done, documents in all


@dataclass(frozen=True)
class Validation:
    """What the validation documents say of the model as it stands.

    Attributes:
        blend: the score fitted to them.
        results: metrics under it, in percent.
        recall: share of the true (document, label) pairs that the dense search found, in percent.
        candidate_recall: likewise, with the neighbours' labels among the candidates.
    """

    blend: Blend
    results: dict[str, float]
    recall: float
    candidate_recall: float


@dataclass(frozen=True)
class _Held:
    """A block of held-out documents with their candidates."""

    first: int
    labels: np.ndarray
    features: np.ndarray
    is_true: np.ndarray
    truth: Csr

    def half(self, every: int) -> np.ndarray:
        """int64 [n]: 0 or 1 by the document's number, so that workers do not matter."""
        return (self.first + np.arange(len(self.labels))) // every % 2

    def examples(self, every: int, half: int) -> tuple[np.ndarray, np.ndarray]:
        """(features, truth) of the candidates of every so many documents of one half."""
        chosen = (self.first + np.arange(len(self.labels))) % every == 0
        there = (self.labels >= 0) & (chosen & (self.half(every) == half))[:, None]
        return self.features[there], self.is_true[there]


class Refresher:
    """Runs refreshes on one worker of the group.

    Attributes:
        indexes: what the last refresh's indexes turned out to be (on rank 0).
        state: what the ranges were brought to; None before the first refresh.
    """

    def __init__(
        self,
        encoder: Encoder,
        classifier: Classifier,
        ranges: Ranges,
        exchange: Exchange,
        proxy_config: proxies.ProxyConfig,
        shortlist_config: ShortlistConfig,
        counts: np.ndarray,
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        self.encoder, self.classifier, self.ranges = encoder, classifier, ranges
        self.exchange, self.seed, self.progress = exchange, seed, progress
        self.proxy_config, self.shortlist_config = proxy_config, shortlist_config
        self.counts = counts
        self.indexes: list[IndexState] = []
        self.state: RangeState | None = None

    def own_blocks(self, features: Rows, phase: str) -> Iterator[tuple[int, np.ndarray]]:
        """(first document, float16 [n, D]) for this rank's blocks of all documents.

        Every rank must draw its iterator to the end: encoding is a joint step of the group.
        """
        size, rank = self.exchange.size, self.exchange.rank
        for start in range(0, features.num_rows, BLOCK * size):
            self.progress(phase, start, features.num_rows)
            stop = min(start + BLOCK * size, features.num_rows)
            z_bD = self.encoder.encode(features.slice(start, stop).padded(BLOCK * size))
            first = start + rank * BLOCK
            if first < stop:
                yield first, z_bD[: stop - first].to(torch.float16).cpu().numpy()

    def fit_proxies(self, cycle: int, features: Rows, folder: Path) -> float:
        """Refits the proxies to the encoder as it is now; returns the proxy loss (on rank 0).

        Args:
            folder: where the files go that the ranges read.
        """
        dim = self.encoder.config.dim
        file = MatrixFile(folder / f"embeddings-{cycle:04d}.f16", features.num_rows, dim)
        if self.exchange.rank == 0:
            file.create()
        self.exchange.barrier()
        for first, z_nD in self.own_blocks(features, "encode"):
            file.write(first, z_nD)
        file.sync()
        self.exchange.barrier()
        path, loss = folder / f"affine-{cycle:04d}.safetensors", float("nan")
        if self.exchange.rank == 0:
            self.progress("proxies", 0, 1)
            self.ranges.bring(RangeState(cycle, file))
            affine, loss = proxies.fit(self.ranges, self.proxy_config, dim, seed=self.seed)
            save_affine(path, affine, cycle)
        self.indexes = self._bring(RangeState(cycle, file, path))
        return loss

    def send_classifier(self) -> None:
        """Gives the ranges the classifier rows as they are now, for validation and search."""
        assert self.state is not None, "no proxies were fitted"
        labels, kind = len(self.counts), self.shortlist_config.dtype(len(self.counts))
        file = MatrixFile(
            self.state.embeddings.path.with_name(f"rows-{self.state.cycle:04d}.bin"),
            labels,
            self.encoder.config.dim + 1,
            kind.name,
        )
        if self.exchange.rank == 0:
            file.create()
        self.exchange.barrier()
        low, high = self.classifier.label_range
        for first in range(low, high, _ROW_BLOCK):
            part = slice(first - low, min(first + _ROW_BLOCK, high) - low)
            weight, bias = self.classifier.weight[part], self.classifier.bias[part, None]
            rows = torch.cat([one.to(torch_type(kind)) for one in (weight, bias)], dim=1)
            file.write(first, rows.cpu().numpy())
        file.sync()
        self.exchange.barrier()
        self.indexes = [*self.indexes, *self._bring(replace(self.state, rows=file))]

    def _bring(self, state: RangeState) -> list[IndexState]:
        """Brings the ranges to ``state``; what they built, on rank 0."""
        built = self.ranges.bring(state) if self.exchange.rank == 0 else []
        self.exchange.barrier()
        self.ranges.follow(state)
        self.state = state
        return built

    def validate(
        self, features: Rows, truth: Truth, lexical: Lexical, sums: MetricSums
    ) -> Validation:
        """Fits the score to held-out documents' candidates, and measures it on them.

        Every document is measured by a score that was fitted to the other half of them; the one
        that is kept is fitted to all.
        """
        held: list[_Held] = []
        counted = np.zeros(3)  # found by the dense search, among all candidates, true pairs
        for first, found, answer in self._with_answers(features, lexical):
            evidence = candidates(found, answer)
            own = truth.slice(first, first + len(evidence.labels))
            labels, true = own.cleared(evidence.labels), own.labels
            is_true = true_candidates(labels, true)
            dense = [found.labels[source] for source in self.shortlist_config.sources]
            hits = count_hits(np.concatenate(dense, 1), true) if dense else 0
            counted += [hits, is_true.sum(), true.nnz]
            features_nmF = evidence.features(self.counts)
            held.append(_Held(first, labels, features_nmF, is_true, true))

        # A document in every so many is enough for a hundred numbers.
        every = -(-features.num_rows // FITTED_TO)
        halves = [[one.examples(every, half) for one in held] for half in (0, 1)]
        first_half = blend.fit(halves[0], self._add_up)
        second_half = blend.fit(halves[1], self._add_up, start=first_half)
        fitted = blend.fit(halves[0] + halves[1], self._add_up, start=first_half)
        total = sums.from_array(np.zeros_like(sums.as_array()))
        for one in held:
            by_first, by_second = (
                fit.log_odds_of(one.features) for fit in (first_half, second_half)
            )
            log_odds = np.where(one.half(every)[:, None] == 0, by_second, by_first)
            total.update(top_k(one.labels, log_odds, max(sums.ks))[0], one.truth)
        together = self._add_up(np.concatenate([counted, total.as_array()]))
        recalls = 100.0 * together[:2] / max(together[2], 1.0)
        return Validation(
            fitted, sums.from_array(together[3:]).result(), float(recalls[0]), float(recalls[1])
        )

    def _with_answers(
        self, features: Rows, lexical: Lexical
    ) -> Iterator[tuple[int, Found, Answer]]:
        """(first document, what the dense and the sparse search found) for this rank's blocks."""
        answers: dict[int, Answer] = {}

        def blocks() -> Iterator[Block]:
            for first, z_nD in self.own_blocks(features, "validate"):
                answers[first] = lexical.ask(features.slice(first, first + len(z_nD)))
                yield first, z_nD, answers[first].votes.labels

        listed, sources = self.shortlist_config.listed, self.shortlist_config.sources
        for first, found in self.ranges.search(blocks(), listed, sources, True):
            yield first, found, answers.pop(first)

    def _add_up(self, own: np.ndarray) -> np.ndarray:
        """The sum of a float64 vector over all workers."""
        tensor = torch.from_numpy(np.asarray(own, np.float64)).to(self.encoder.device)
        return np.asarray(self.exchange.sum_(tensor).cpu().numpy())


def block_of_rows(labels: int, dim: int, item: int) -> int:
    """Bytes of the largest block that ``send_classifier`` writes of so many rows, with biases,
    whose numbers take ``item`` bytes each."""
    return min(labels, _ROW_BLOCK) * (dim + 1) * item


def count_hits(listed: np.ndarray, truth: Csr) -> int:
    """How many true pairs are among each document's listed labels, however often listed."""
    width = truth.num_columns
    rows = np.arange(len(listed))[:, None] * width
    named = (rows + listed)[listed >= 0]
    return int(np.isin(truth.row_of_entry() * width + truth.ids, named).sum())


def true_candidates(listed: np.ndarray, truth: Csr) -> np.ndarray:
    """bool [n, m]: which of each document's listed labels are true ones."""
    width = truth.num_columns
    keys = np.arange(len(listed))[:, None] * width + listed
    found = np.isin(keys, truth.row_of_entry() * width + truth.ids)
    return np.asarray(found & (listed >= 0))
