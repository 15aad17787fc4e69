"""Global batches of an epoch, built one ahead of the training step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ray_xml.classifier import Candidates
from ray_xml.encoder import TokenBatch
from ray_xml.partition import Range
from ray_xml.sparse import Csr, Rows, distinct


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
        candidates: likewise up to about so many in all; None for no such number.
        seed: of the drawing.
        left_out: [N, L], pairs that are no negatives; None for no such pairs.
        device: where the batch goes.
    """

    features: Rows
    labels: Rows
    label_range: Range
    workers: int
    negatives: str
    device: torch.device
    random_negatives: int = 0
    candidates: int | None = None
    seed: int = 0
    left_out: Rows | None = None

    def epoch(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray | None]], epoch: int
    ) -> Iterator[Batch]:
        """A batch for each (documents, shortlists); the next one is built in the background."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead: deque[Future[Batch]] = deque()
            start = 0
            for documents, listed in batches:
                ahead.append(pool.submit(self.make, documents, listed, (epoch, start)))
                start += len(documents)
                if len(ahead) > 1:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def make(
        self, documents: np.ndarray, listed: np.ndarray | None, stream: tuple[int, int]
    ) -> Batch:
        """One batch.

        Args:
            documents: int64 [n], document numbers.
            listed: int32 [n, k], their shortlists, −1 for none. None where they have no say.
            stream: epoch and first place in it: what the drawing depends on besides the seed.
        """
        count = len(documents)
        padded = -(-count // self.workers) * self.workers
        features = self.features.take(documents).padded(padded)
        numbers = torch.from_numpy(np.pad(documents, (0, padded - count)))
        if listed is None:
            listed = np.zeros((count, 0), np.int32)
        labels = self.labels.take(documents).padded(padded)
        left_out = None if self.left_out is None else self.left_out.take(documents)
        own = np.pad(listed, ((0, padded - count), (0, 0)), constant_values=-1)
        return Batch(
            TokenBatch.build(numbers, features, self.device),
            Candidates.build(
                own,
                labels,
                self.label_range,
                self.device,
                negatives=self.negatives,
                documents=count,
                drawn=self._drawn(stream, listed, labels),
                left_out=left_out,
            ),
            count,
        )

    def _drawn(self, stream: tuple[int, int], listed: np.ndarray, labels: Csr) -> np.ndarray | None:
        """int32: the labels drawn for one batch, the same on every worker."""
        if self.negatives == "shortlist":
            return None
        total, count = self.labels.num_columns, self.random_negatives
        if self.candidates is not None:
            there = len(distinct(np.concatenate([listed[listed >= 0], labels.packed().ids])))
            count = max(count, draws(self.candidates, there, total))
        if count == 0:
            return None
        if count >= total:
            return np.arange(total, dtype=np.int32)
        random = np.random.default_rng([self.seed, *stream, 0xD4A3])
        return random.integers(total, size=count, dtype=np.int32)


def draws(wanted: int, there: int, total: int) -> int:
    """How many of ``total`` labels to draw, with repetition, so that ``there`` known ones become
    ``wanted``, as expected."""
    if wanted >= total:
        return total
    # A label that is not there yet stays out of m draws with probability (1 − 1 / total)^m.
    share_left = (total - wanted) / max(total - there, 1)
    return max(0, math.ceil(math.log(min(share_left, 1.0)) / math.log1p(-1.0 / total)))
