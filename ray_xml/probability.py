"""From a score to a probability, and to the score from which a wanted precision holds.

The score's log-odds z become

    p = σ(a z + b)

with a and b of maximum likelihood, a ≥ 0, so that no order changes (Platt, "Probabilistic Outputs
for Support Vector Machines", 1999). As there, the truth of N₊ right and N₋ wrong predictions counts
as (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2), which keeps p off 0 and 1. The score is a fit by logistic
regression to all candidates already; this one looks at the best predictions alone, which are what
is shown. ``calibrate`` makes the examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from ray_xml.calibration import FINE, ScoreBins
from ray_xml.errors import ConfigError
from ray_xml.json_text import count_of, parse_json

_LARGEST = 1e6  # of a and b
_STEPS = 100
_FEWEST = 20  # predictions whose precision is worth a threshold


@dataclass(frozen=True)
class Probability:
    """What is fitted, and what a threshold bought where it was fitted.

    Attributes:
        slope, offset: a and b.
        counts, right: int64 [FINE]: predictions of validation documents by σ(z), as in
            ``ScoreBins``, and those of them that were right; all 0 where nothing was fitted.
    """

    slope: float
    offset: float
    counts: np.ndarray
    right: np.ndarray

    def of(self, log_odds: np.ndarray) -> np.ndarray:
        """float64, likewise shaped: p; 0 where the log-odds are −∞."""
        safe = np.where(np.isneginf(log_odds), 0.0, log_odds)
        p = expit(self.slope * safe.astype(np.float64) + self.offset)
        return np.where(np.isneginf(log_odds), 0.0, p)

    def threshold(self, precision: float) -> float:
        """The lowest score, in steps of 1 / FINE, so that of the validation documents' predictions
        with this score or more a share of ``precision`` or more was right.

        Raises:
            ConfigError: nothing was fitted, or no threshold with at least 20 predictions above it
                reached that precision.
        """
        if not self.counts.any():
            raise ConfigError(
                "the model does not know the precision of its scores; run `ray-xml calibrate RUN`, "
                "and export it again if it is an exported model"
            )
        above, right = (np.cumsum(one[::-1])[::-1] for one in (self.counts, self.right))
        enough = above >= _FEWEST
        reached = right / np.maximum(above, 1)
        good = np.flatnonzero(enough & (reached >= precision))
        if len(good) == 0:
            most = f"{reached[enough].max():.3f}" if enough.any() else "not known: they were few"
            raise ConfigError(
                f"a precision of {precision:g} was not reached on the validation documents; the "
                f"highest was {most}"
            )
        return float(good[0]) / FINE

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "slope": self.slope,
            "offset": self.offset,
            "counts": self.counts.tolist(),
            "right": self.right.tolist(),
        }

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> Probability:
        """The inverse of ``as_dict``.

        Raises:
            KeyError: something is missing.
            TypeError, ValueError: something is of a wrong type, length or size.
        """
        numbers = {}
        for name, least in (("slope", 0.0), ("offset", -_LARGEST)):
            value = tree[name]
            # A NaN fails, too.
            if type(value) not in (int, float) or not least <= value <= _LARGEST:
                raise ValueError(f"the probability's {name} is no number that a fit gives")
            numbers[name] = float(value)
        bins = {}
        for name in ("counts", "right"):
            if not isinstance(tree[name], list) or len(tree[name]) != FINE:
                raise ValueError(f"the probability's {name} should be {FINE} counts")
            # So that sums of them stay exact.
            bins[name] = np.array([count_of(one, 2**40) for one in tree[name]], np.int64)
        if (bins["right"] > bins["counts"]).any():
            raise ValueError("more right predictions than there are")
        return Probability(numbers["slope"], numbers["offset"], bins["counts"], bins["right"])

    @staticmethod
    def from_json(text: str | bytes, checkpoint: str) -> Probability | None:
        """What a run's file says, or None if that is of another checkpoint.

        Args:
            checkpoint: the seal of its manifest.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        tree = parse_json(text)
        found = Probability.from_dict(tree)
        return found if tree["checkpoint"] == checkpoint else None


# p is the score itself.
UNFITTED = Probability(1.0, 0.0, np.zeros(FINE, np.int64), np.zeros(FINE, np.int64))


def fit(log_odds: np.ndarray, right: np.ndarray) -> Probability:
    """Fits to predictions.

    Args:
        log_odds: float [n], finite, at least one.
        right: bool [n].
    """
    z = log_odds.astype(np.float64)
    hits = int(right.sum())
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(z) - hits + 2))
    slope, offset = _newton(z, target)
    if slope < 0:
        mean = float(target.mean())
        slope, offset = 0.0, float(np.log(mean / (1 - mean)))
    bins = ScoreBins()
    bins.add(expit(z), right)
    counts, good = (one.astype(np.int64) for one in (bins.count, bins.right))
    return Probability(min(slope, _LARGEST), min(max(offset, -_LARGEST), _LARGEST), counts, good)


def _newton(z: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """(a, b) by Newton's method with halved steps, after Lin, Lin, Weng, "A note on Platt's
    probabilistic outputs for support vector machines", Machine Learning 68, 2007."""
    x = np.stack([z, np.ones_like(z)])

    def loss(ab: np.ndarray) -> float:
        product = ab @ x
        return float((np.logaddexp(0.0, product) - target * product).sum())

    ab = np.array([1.0, 0.0])
    best = loss(ab)
    for _ in range(_STEPS):
        p = expit(ab @ x)
        gradient = x @ (p - target)
        if np.abs(gradient).max() < 1e-7 * len(z):
            break
        curvature = (x * (p * (1 - p))) @ x.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, -gradient)
        while not (reached := loss(ab + step)) < best and np.abs(step).max() > 1e-10:
            step = step / 2
        if not reached < best:
            break
        ab, best = ab + step, reached
    return float(ab[0]), float(ab[1])
