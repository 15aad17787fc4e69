"""Going through (label, document) pairs label by label, in chunks of bounded size.

A label's pairs are cut where they are for the label's own sake, never for that of the labels
beside it, so sums over them do not depend on which labels share a range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ray_xml.bags import Bags, sum_bags
from ray_xml.sparse import Csr, pieces

PAIRS = 8192  # pairs of a chunk: bounds the scratch memory

Take = Callable[[np.ndarray], Tensor]  # float32 [n, D], the embeddings of int [n] documents


@dataclass(frozen=True)
class Chunk:
    """Consecutive labels low..high with their pairs, or a part of the pairs of one.

    Attributes:
        embeddings: float32 [P, D], the documents' of the pairs.
        label_of: int64 [P], each pair's label, counted from ``low``.
        ends: whether no more pairs of the last label follow.
    """

    low: int
    high: int
    embeddings: Tensor
    label_of: Tensor
    ends: bool
    _offsets: Tensor

    def sums(self, weights: Tensor | None = None) -> Tensor:
        """float32 [high − low, D]: each label's sum of embeddings, weighted by float32 [P]."""
        z_PD = self.embeddings
        if weights is None:
            weights = torch.ones(len(z_PD), device=z_PD.device)
        places = torch.arange(len(z_PD), device=z_PD.device)
        return sum_bags(z_PD, Bags(places, self._offsets, weights))


def each_chunk(labels: Csr, take: Take) -> Iterator[Chunk]:
    """All pairs of ``labels`` [labels, documents], in order."""
    for low, high, begin, end in _borders(labels.offsets):
        z_PD = take(labels.ids[begin:end])
        offsets = torch.from_numpy(np.maximum(labels.offsets[low:high], begin) - begin)
        ends = np.minimum(labels.offsets[low + 1 : high + 1], end)
        counts = torch.from_numpy(ends - begin) - offsets
        label_of = torch.repeat_interleave(torch.arange(high - low), counts)
        device = z_PD.device
        ended = end == labels.offsets[high]
        yield Chunk(low, high, z_PD, label_of.to(device), bool(ended), offsets.to(device))


def row_sums(labels: Csr, take: Take) -> Iterator[tuple[int, int, Tensor]]:
    """(low, high, float32 [high − low, D]): the labels' sums, each label once."""
    begun: Tensor | None = None
    for chunk in each_chunk(labels, take):
        sums = chunk.sums() if begun is None else begun + chunk.sums()
        if chunk.ends:
            yield chunk.low, chunk.high, sums
        begun = None if chunk.ends else sums


def _borders(offsets: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """(low, high, begin, end): labels and entries of each chunk."""
    for low, high in pieces(offsets, PAIRS):
        begin, end = int(offsets[low]), int(offsets[high])
        # Only a single label has more pairs than a chunk; without any it is a chunk all the same.
        for first in range(begin, max(end, begin + 1), PAIRS):
            yield low, high, first, min(first + PAIRS, end)
