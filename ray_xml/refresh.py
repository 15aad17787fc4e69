"""What happens between two stretches of classifier training: a refresh.

    encode      every training document, in blocks of fixed size, on the worker that owns it
    proxies     fitted to those embeddings over all label ranges
    shortlists  of the training documents, into one memory-mapped file
    validation  recall of the shortlist, the choice of β, the metrics

Block borders do not depend on the number of workers, so a block's arithmetic is the same
whoever does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ray_xml import proxies
from ray_xml.classifier import Classifier
from ray_xml.encoder import Encoder
from ray_xml.exchange import Exchange
from ray_xml.label_search import Found
from ray_xml.metrics import MetricSums
from ray_xml.ranges import Ranges
from ray_xml.scoring import candidates, top_k
from ray_xml.shortlist import ShortlistConfig
from ray_xml.sparse import Csr

BLOCK = 2048  # documents encoded and searched at a time
_ROW_BLOCK = 65536  # classifier rows sent at a time
BETAS = tuple(step / 10 for step in range(11))

Progress = Callable[[str, int, int], None]  # phase, documents done, documents in all


@dataclass(frozen=True)
class Validation:
    """What the validation documents say of the model as it stands.

    Attributes:
        beta: the best weight of the classifier under the metric asked for.
        results: metrics at that β, in percent.
        recall: share of the true (document, label) pairs that are on the shortlist, in percent.
    """

    beta: float
    results: dict[str, float]
    recall: float


class Refresher:
    """Runs refreshes on one worker of the group."""

    def __init__(
        self,
        encoder: Encoder,
        classifier: Classifier,
        ranges: Ranges,
        exchange: Exchange,
        proxy_config: proxies.ProxyConfig,
        shortlist_config: ShortlistConfig,
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        self.encoder, self.classifier, self.ranges = encoder, classifier, ranges
        self.exchange, self.seed, self.progress = exchange, seed, progress
        self.proxy_config, self.shortlist_config = proxy_config, shortlist_config

    def own_blocks(self, features: Csr, phase: str) -> Iterator[tuple[int, np.ndarray]]:
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

    def fit_proxies(self, cycle: int, features: Csr) -> float:
        """Refits the proxies to the encoder as it is now; returns the proxy loss (on rank 0)."""
        if self.exchange.rank == 0:
            self.ranges.begin_cycle(cycle)
        self.exchange.barrier()
        for first, z_nD in self.own_blocks(features, "encode"):
            self.ranges.add_block(cycle, first, z_nD)
        self.ranges.flush()
        self.exchange.barrier()
        loss = float("nan")
        if self.exchange.rank == 0:
            self.progress("proxies", 0, 1)
            dim = self.encoder.config.dim
            affine, loss = proxies.fit(self.ranges, self.proxy_config, dim, seed=self.seed)
            self.ranges.set_proxies(affine)
        self.exchange.barrier()
        return loss

    def send_classifier(self) -> None:
        """Gives the ranges the classifier rows as they are now, for validation and search."""
        low, high = self.classifier.label_range
        for first in range(low, high, _ROW_BLOCK):
            part = slice(first - low, min(first + _ROW_BLOCK, high) - low)
            self.ranges.add_rows(
                first,
                self.classifier.weight[part].cpu().numpy(),
                self.classifier.bias[part].cpu().numpy(),
            )
        self.ranges.flush()
        self.exchange.barrier()
        if self.exchange.rank == 0:
            self.ranges.index_rows()
        self.exchange.barrier()

    def write_shortlists(self, path: Path, features: Csr) -> None:
        """Writes int32 [N, width]: the shortlist of every training document, −1 for none."""
        width = self.shortlist_config.width
        if self.exchange.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.truncate(4 * width * features.num_rows)
        self.exchange.barrier()
        lists = np.memmap(path, np.int32, "r+", shape=(features.num_rows, width))
        for first, found in self._search(features, "shortlist", both_scores=False):
            labels = candidates(found)[0]
            lists[first : first + len(labels)] = labels
        lists.flush()
        self.exchange.barrier()

    def validate(
        self, features: Csr, labels: Csr, sums: MetricSums, metric: str, beta: float | None
    ) -> Validation:
        """Scores held-out documents at every β and keeps the best, or just at ``beta``."""
        betas = BETAS if beta is None else (beta,)
        empty = np.zeros_like(sums.as_array())
        totals = [sums.from_array(empty) for _ in betas]
        hits = pairs = 0
        for first, found in self._search(features, "validate", both_scores=True):
            listed, by_classifier, by_proxy = candidates(found)
            truth = labels.slice(first, first + len(listed)).packed()
            hits += _count_hits(listed, truth)
            pairs += truth.nnz
            for total, weight in zip(totals, betas, strict=True):
                best = top_k(listed, by_classifier, by_proxy, weight, max(sums.ks))[0]
                total.update(best, truth)
        stacked = torch.from_numpy(np.concatenate([[hits, pairs], *(t.as_array() for t in totals)]))
        together = self.exchange.sum_(stacked.to(self.encoder.device)).cpu().numpy()
        each = np.split(together[2:], len(betas))
        results = [sums.from_array(vector).result() for vector in each]
        chosen = max(range(len(betas)), key=lambda i: results[i][metric])
        return Validation(
            betas[chosen], results[chosen], 100.0 * together[0] / max(together[1], 1.0)
        )

    def _search(
        self, features: Csr, phase: str, *, both_scores: bool
    ) -> Iterator[tuple[int, Found]]:
        return self.ranges.search(
            self.own_blocks(features, phase),
            self.shortlist_config.listed,
            self.shortlist_config.sources,
            both_scores,
        )


def _count_hits(listed: np.ndarray, truth: Csr) -> int:
    """How many true pairs are among each document's listed labels."""
    width = truth.num_columns
    rows = np.arange(len(listed))[:, None] * width
    named = (rows + listed)[listed >= 0]
    return int(np.isin(truth.row_of_entry() * width + truth.ids, named).sum())
