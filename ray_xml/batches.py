"""Global batches of an epoch, built one ahead of the training step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ray_xml.classifier import Candidates
from ray_xml.encoder import TokenBatch
from ray_xml.partition import Range
from ray_xml.sparse import Csr


@dataclass(frozen=True)
class Batch:
    """What one worker needs of one global batch.

    Attributes:
        tokens: the features of all its documents.
        candidates: the labels of this worker's range that it trains.
        documents: how many documents it has, padding apart.
    """

    tokens: TokenBatch
    candidates: Candidates
    documents: int


@dataclass(frozen=True)
class BatchMaker:
    """Turns document numbers into batches.

    Attributes:
        features, labels: [N, V] and [N, L] of the documents that train.
        label_range: the labels of this worker.
        workers: batches are padded with empty documents to a multiple of it.
        negatives: see ``classifier``.
        random_negatives: labels drawn at random into every batch's candidates.
        seed: of the drawing.
        device: where the batch goes.
    """

    features: Csr
    labels: Csr
    label_range: Range
    workers: int
    negatives: str
    device: torch.device
    random_negatives: int = 0
    seed: int = 0

    def epoch(
        self, order: np.ndarray, size: int, shortlists: np.ndarray | None, epoch: int
    ) -> Iterator[Batch]:
        """Batches of ``size`` documents in ``order``; the next one is built in the background."""
        starts = range(0, len(order), size)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead = [pool.submit(self.make, order[:size], shortlists, (epoch, 0))]
            for start in starts:
                stream, following = (epoch, start + size), order[start + size : start + 2 * size]
                if len(following):
                    ahead.append(pool.submit(self.make, following, shortlists, stream))
                yield ahead.pop(0).result()

    def make(
        self, documents: np.ndarray, shortlists: np.ndarray | None, stream: tuple[int, int]
    ) -> Batch:
        """One batch.

        Args:
            documents: int64 [n], document numbers.
            shortlists: int32 [N, k], −1 for none; may be memory-mapped. None where they have no
                say.
            stream: epoch and first place in it: what the drawing depends on besides the seed.
        """
        count = len(documents)
        padded = -(-count // self.workers) * self.workers
        features = self.features.take(documents).padded(padded)
        numbers = torch.from_numpy(np.pad(documents, (0, padded - count)))
        listed = np.zeros((count, 0), np.int32) if shortlists is None else shortlists[documents]
        own = np.pad(listed, ((0, padded - count), (0, 0)), constant_values=-1)
        return Batch(
            TokenBatch.build(numbers, features, self.device),
            Candidates.build(
                own,
                self.labels.take(documents).padded(padded),
                self.label_range,
                self.device,
                negatives=self.negatives,
                documents=count,
                drawn=self._drawn(stream),
            ),
            count,
        )

    def _drawn(self, stream: tuple[int, int]) -> np.ndarray | None:
        """int32: the labels drawn for one batch, the same on every worker."""
        if self.random_negatives == 0 or self.negatives == "shortlist":
            return None
        if self.random_negatives >= self.labels.num_columns:
            return np.arange(self.labels.num_columns, dtype=np.int32)
        random = np.random.default_rng([self.seed, *stream, 0xD4A3])
        return random.integers(self.labels.num_columns, size=self.random_negatives, dtype=np.int32)
