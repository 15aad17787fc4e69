"""All label ranges of a run together: what is asked of them, and the answer within one process.

``cluster.label_shards`` gives the same answers from Ray actors.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from ray_xml.label_index import IndexState
from ray_xml.label_range import LabelRange
from ray_xml.label_search import Found
from ray_xml.proxies import PairSums
from ray_xml.range_state import RangeState

# What is searched for: a key; float16 embeddings [n, D], or int64 [n] documents whose embeddings
# the ranges have; and int32 [n, m] further labels to score.
Block = tuple[int, np.ndarray, np.ndarray | None]


class Ranges(Protocol):
    """All label ranges together, wherever they live: what a training worker asks of them.

    ``bring`` brings them to a state; one worker calls it, and thereafter the others ``follow``. All
    else is asked of the ranges in that state: ``search`` by every worker for its own documents,
    the rest by one worker while the others wait.
    """

    def bring(self, state: RangeState) -> list[IndexState]: ...
    def follow(self, state: RangeState) -> None: ...
    def pair_sums(self, affine: Tensor) -> PairSums: ...
    def pair_gradient(
        self, affine: Tensor, key: int, part: int, parts: int
    ) -> tuple[Tensor, int]: ...
    def search(
        self,
        blocks: Iterable[Block],
        k: int,
        sources: tuple[str, ...],
        both_scores: bool,
    ) -> Iterator[tuple[int, Found]]: ...
    def save_proxies(self, folder: Path) -> None: ...
    def peak_memory(self) -> int: ...


class LocalRanges:
    """``Ranges`` within this process."""

    def __init__(self, ranges: list[LabelRange]) -> None:
        self._ranges = ranges

    def bring(self, state: RangeState) -> list[IndexState]:
        return [built for one in self._ranges for built in one.bring(state)]

    def follow(self, state: RangeState) -> None:
        assert all(one.state == state for one in self._ranges)

    def pair_sums(self, affine: Tensor) -> PairSums:
        return functools.reduce(operator.add, (one.pair_sums(affine) for one in self._ranges))

    def pair_gradient(self, affine: Tensor, key: int, part: int, parts: int) -> tuple[Tensor, int]:
        return sum_gradients([one.pair_gradient(affine, key, part, parts) for one in self._ranges])

    def search(
        self,
        blocks: Iterable[Block],
        k: int,
        sources: tuple[str, ...],
        both_scores: bool,
    ) -> Iterator[tuple[int, Found]]:
        for key, embeddings, given in blocks:
            found = [one.search(embeddings, k, sources, both_scores, given) for one in self._ranges]
            yield key, Found.merge(found, k)

    def save_proxies(self, folder: Path) -> None:
        for number, one in enumerate(self._ranges):
            one.save_proxies(folder, number)

    def peak_memory(self) -> int:
        return 0  # the process counts itself


def sum_gradients(parts: list[tuple[Tensor, int]]) -> tuple[Tensor, int]:
    """Adds (gradient, pairs) over ranges."""
    total = parts[0][0].clone()
    for gradient, _ in parts[1:]:
        total += gradient
    return total, sum(pairs for _, pairs in parts)
