"""Whether scores are probabilities: reliability bins, calibration error, and what a threshold buys.

Scores lie in [0, 1] and fall into ``FINE`` equal bins, whose three sums are all that is kept of
them, so that any number of predictions can be added up.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

FINE, BINS = 1000, 20  # bins that are kept, and those that are shown: FINE is a multiple


@dataclass
class ScoreBins:
    """Sums over predictions by score.

    Attributes:
        count, right, score: float64 [FINE]: predictions, those that are right, sum of scores.
    """

    count: np.ndarray = field(default_factory=lambda: np.zeros(FINE))
    right: np.ndarray = field(default_factory=lambda: np.zeros(FINE))
    score: np.ndarray = field(default_factory=lambda: np.zeros(FINE))

    def add(self, scores: np.ndarray, right: np.ndarray) -> None:
        """Adds predictions.

        Args:
            scores: float [n] in [0, 1]; right: bool [n].
        """
        # In float64: a float32 just below a bin's edge would be rounded up to it.
        place = np.minimum((scores.astype(np.float64) * FINE).astype(np.int64), FINE - 1)
        self.count += np.bincount(place, minlength=FINE)
        self.right += np.bincount(place, weights=right, minlength=FINE)
        self.score += np.bincount(place, weights=scores, minlength=FINE)

    def reliability(self) -> list[tuple[float, float, int]]:
        """(mean score, share that is right, predictions) of each of ``BINS`` equal bins that
        holds any, ascending."""
        count, right, score = self._coarse()
        return [
            (float(s / n), float(r / n), int(n))
            for n, r, s in zip(count, right, score, strict=True)
            if n
        ]

    def error(self) -> float:
        """The expected calibration error, in [0, 1]:

            ECE = Σ_b n_b / n · |right_b / n_b − score_b / n_b|

        over ``BINS`` bins of equal width; 0 of no predictions. Source: Guo, Pleiss, Sun,
        Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
        """
        count, right, score = self._coarse()
        return float(np.abs(right - score).sum() / max(count.sum(), 1.0))

    def thresholds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(threshold, predictions at or above it, right ones among them), float64 [FINE] each,
        thresholds ascending from 0 in steps of 1 / FINE."""
        above = np.cumsum(self.count[::-1])[::-1], np.cumsum(self.right[::-1])[::-1]
        return np.arange(FINE) / FINE, *above

    def _coarse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape = (BINS, FINE // BINS)
        sums = (one.reshape(shape).sum(1) for one in (self.count, self.right, self.score))
        count, right, score = sums
        return count, right, score
