"""Metrics document by document, and how far a difference between two models can be trusted.

Every metric of ``metrics`` is a ratio of sums over documents, M = Σ t_i / Σ b_i (b_i = 1 for P, R
and nDCG; the best that could be had for PSP and PSnDCG). Two models asked about the same documents
share the b_i. With d_i the difference of their t_i, D = Σ d_i / Σ b_i is the difference of the
metrics, and its standard error over the draw of the N documents is that of a ratio estimator

    s(D) = √(N / (N − 1) · Σ (d_i − D b_i)²) / Σ b_i

since d_i − D b_i has the mean 0. For b_i = 1 this is the standard error of a paired t-test. With a
second model that scores 0 everywhere it is the standard error of one model's metric. Source:
Cochran, "Sampling Techniques", 3rd edition, 1977, section 6.3; pairing as in Koehn, "Statistical
Significance Tests for Machine Translation Evaluation", EMNLP 2004, whose bootstrap over documents
it agrees with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_xml.metrics import BINS, Row

_TOPS = {"P": None, "nDCG": Row.NDCG, "PSP": Row.PSP, "PSnDCG": Row.PSNDCG, "R": Row.RECALL}
_BOTTOMS = {"PSP": Row.PSP_BEST, "PSnDCG": Row.PSNDCG_BEST}
SURE = 1.96  # standard errors: 95 % of a normal distribution lie within


@dataclass(frozen=True)
class DocumentScores:
    """Numerators and denominators of N documents.

    Attributes:
        names: M metrics, "P@1" and so on.
        tops, bottoms: float32 [N, M].
    """

    names: tuple[str, ...]
    tops: np.ndarray
    bottoms: np.ndarray

    @staticmethod
    def of(ks: Sequence[int], table: np.ndarray) -> DocumentScores:
        """Of a block of documents: their ``MetricSums.contributions`` at the positions ``ks``."""
        names, tops, bottoms = [], [], []
        for kind, row in _TOPS.items():
            for place, k in enumerate(ks):
                hits = table[: len(BINS), :, place].sum(0) / k
                tops.append(hits if row is None else table[row, :, place])
                best = _BOTTOMS.get(kind)
                bottoms.append(np.ones(len(hits)) if best is None else table[best, :, place])
                names.append(f"{kind}@{k}")
        both = (np.stack(some, 1).astype(np.float32) for some in (tops, bottoms))
        return DocumentScores(tuple(names), *both)

    @staticmethod
    def joined(parts: list[DocumentScores]) -> DocumentScores:
        """Blocks one after the other; at least one."""
        return DocumentScores(
            parts[0].names,
            np.concatenate([one.tops for one in parts]),
            np.concatenate([one.bottoms for one in parts]),
        )

    def errors(self) -> dict[str, float]:
        """The standard error of each metric, in percent."""
        found = _errors(self.tops, self.bottoms)[1]
        return dict(zip(self.names, (100.0 * found).tolist(), strict=True))


@dataclass(frozen=True)
class Difference:
    """Of a metric between two models, in percentage points.

    Attributes:
        value: the second's minus the first's.
        error: its standard error over documents.
    """

    value: float
    error: float

    @property
    def sure(self) -> bool:
        """Whether 0 lies outside of the 95 % interval."""
        return abs(self.value) > SURE * self.error


def differences(first: DocumentScores, second: DocumentScores) -> dict[str, Difference]:
    """``second`` against ``first``, both on the same documents in the same order.

    Raises:
        ValueError: they are not.
    """
    if first.names != second.names or not np.array_equal(first.bottoms, second.bottoms):
        raise ValueError("the scores are not those of the same documents and metrics")
    apart = second.tops.astype(np.float64) - first.tops
    values, errors = _errors(apart, first.bottoms)
    return {
        name: Difference(100.0 * float(value), 100.0 * float(error))
        for name, value, error in zip(first.names, values, errors, strict=True)
    }


def _errors(tops: np.ndarray, bottoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ratios, their standard errors), float64 [M] each; 0 where there is nothing to divide by."""
    count = len(tops)
    top, bottom = tops.astype(np.float64), bottoms.astype(np.float64)
    total = bottom.sum(0)
    safe = np.where(total > 0, total, 1.0)
    ratio = top.sum(0) / safe
    spread = np.square(top - ratio * bottom).sum(0) * count / max(count - 1, 1)
    return ratio, np.where(total > 0, np.sqrt(spread) / safe, 0.0)
