"""One calibrated score out of all that is known of a (document, label) pair.

    score = σ(w₀ + Σ_i w_i x_i + Σ_{i≤j} w_ij x_i x_j)

over the features ``NAMES``, scaled to mean 0 and variance 1. LightDXML's own score,
β·σ(classifier) + (1 − β)·σ(cosine), is a fixed form with one number to choose. This is a logistic
regression with products, fitted to the validation documents' candidates by Newton's method: about
a hundred numbers, and its scores are probabilities. The products let one kind of evidence decide
how far another is to be believed; they are worth a point of P@1 (docs/ablations.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

NAMES = (
    "logit",
    "cosine",
    "share of flat votes",
    "share of sharp votes",
    "log share of flat votes",
    "log share of sharp votes",
    "log flat votes",
    "centroid",
    "log centroid",
    "association",
    "log association",
    "log count",
)
_LEAST = 1e-3  # stands for no votes at all inside a logarithm
_RIDGE = 1.0  # keeps what never varies, or never without something else, from arbitrary weights
_STEPS = 30
_FAR = 8.0  # standard deviations: further out, products would run away from what was fitted
_LARGEST = 1e30  # of the score's numbers
_ROWS = 16384  # candidates whose products are formed at a time: bounds the scratch memory
_SCORED = 4096  # candidates scored at a time: as many as stay in a processor's cache


@dataclass(frozen=True)
class Evidence:
    """What is known of the candidate labels of n documents, m each.

    Attributes:
        labels: int32 [n, m], −1 for none.
        logits, cosines: float32 [n, m] from the classifier and the proxies.
        flat, sharp: float32 [n, m] votes (see ``neighbors.Votes``), 0 for none.
        flat_total, sharp_total: float32 [n].
        centroid, association: float32 [n, m] (see ``label_words``).
    """

    labels: np.ndarray
    logits: np.ndarray
    cosines: np.ndarray
    flat: np.ndarray
    sharp: np.ndarray
    flat_total: np.ndarray
    sharp_total: np.ndarray
    centroid: np.ndarray
    association: np.ndarray

    def features(self, counts: np.ndarray) -> np.ndarray:
        """float32 [n, m, F], one feature of ``NAMES`` each.

        Args:
            counts: [L] training documents of each label.
        """
        flat_share = self.flat / np.maximum(self.flat_total, 1e-12)[:, None]
        sharp_share = self.sharp / np.maximum(self.sharp_total, 1e-12)[:, None]
        least = np.float32(_LEAST)
        parts = [
            np.clip(self.logits, -20.0, 20.0),
            self.cosines,
            flat_share,
            sharp_share,
            np.log(flat_share + least),
            np.log(sharp_share + least),
            np.log(self.flat + least),
            self.centroid,
            np.log(np.maximum(self.centroid, 0) + least),
            self.association,
            np.log(np.maximum(self.association, 0) + least),
            # Of the candidates alone: there may be millions of labels, and a lone document.
            np.log(np.maximum(counts[self.labels], 1)).astype(np.float32),
        ]
        return np.stack(parts, axis=-1).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Blend:
    """The numbers of the score.

    Attributes:
        mean, scale: float64 [F], what features are scaled by: (x − mean) · scale.
        weights: float64 [1 + F + F (F + 1) / 2]: constant, features, products in the order of
            ``np.triu_indices(F)``.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray

    def as_dict(self) -> dict[str, list[float]]:
        """For JSON."""
        return {name: [float(x) for x in getattr(self, name)] for name in _SIZES}

    @staticmethod
    def from_dict(named: Mapping[str, Sequence[float]]) -> Blend:
        """The inverse of ``as_dict``.

        Raises:
            KeyError: something is missing.
            ValueError: something is of the wrong length, not finite or too large.
        """
        parts = {name: np.asarray(named[name], np.float64) for name in _SIZES}
        for name, size in _SIZES.items():
            # They are float32 when they are used. A NaN fails, too.
            if parts[name].shape != (size,) or not (np.abs(parts[name]) <= _LARGEST).all():
                raise ValueError(f"the score's {name} should be {size} finite numbers")
        return Blend(**parts)

    def log_odds(self, evidence: Evidence, counts: np.ndarray) -> np.ndarray:
        """float32 [n, m]: what candidates are ordered by; σ of it is the score.

        Float32 has no room between a score of 1 − 3e-8 and 1, where many a best label lies.
        """
        return self.log_odds_of(evidence.features(counts))

    def log_odds_of(self, features: np.ndarray) -> np.ndarray:
        """Likewise, of features [n, m, F]."""
        raw = features.reshape(-1, WIDTH)
        total = np.empty(len(raw), np.float32)
        for first in range(0, len(raw), _SCORED):
            total[first : first + _SCORED] = self._scores(raw[first : first + _SCORED])
        return total.reshape(features.shape[:-1])

    def _scores(self, raw: np.ndarray) -> np.ndarray:
        """float32 [r]: log-odds of candidates with features [r, F].

        Each is worked out from its own features by the same additions in the same order. Matrix
        products would round equal candidates differently by where they stand.
        """
        mean, scale = self.mean.astype(np.float32), self.scale.astype(np.float32)
        x = np.ascontiguousarray(raw.T)
        x -= mean[:, None]
        x *= scale[:, None]
        np.clip(x, -_FAR, _FAR, out=x)
        weights = self.weights.astype(np.float32)
        squares = np.zeros((WIDTH, WIDTH), np.float32)
        squares[_PAIRS] = weights[1 + WIDTH :]
        # slope_i = w_i + Σ_{j≥i} w_ij x_j, one diagonal of the products after another.
        slopes = np.repeat(weights[1 : 1 + WIDTH, None], len(raw), axis=1)
        for step in range(WIDTH):
            slopes[: WIDTH - step] += np.diagonal(squares, step)[:, None] * x[step:]
        slopes *= x
        total = np.full(len(raw), weights[0])
        for slope in slopes:
            total += slope
        return total


WIDTH = len(NAMES)
_PAIRS = np.triu_indices(WIDTH)
_SIZES = {"mean": WIDTH, "scale": WIDTH, "weights": 1 + WIDTH + len(_PAIRS[0])}


def _default() -> Blend:
    """Where no validation documents are set aside: rounded from linear fits on several sets."""
    weights = np.zeros(_SIZES["weights"])
    # Logits are narrowed, lest they be cut off at ``_FAR``.
    scale = np.array([0.2] + [1.0] * (WIDTH - 1))
    weights[1 : 1 + WIDTH] = [2.5, 1.0, 0.0, 1.0, 0.3, 0.3, 0.0, 1.0, 0.2, 0.0, 0.3, 0.0]
    return Blend(np.zeros(WIDTH), scale, weights)


DEFAULT = _default()


def fit(
    blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    add_up: Callable[[np.ndarray], np.ndarray] = lambda own: own,
    *,
    products: bool = True,
    start: Blend | None = None,
) -> Blend:
    """Maximum likelihood of the candidates' truth, by Newton's method with a little ridge.

    Args:
        blocks: (x float32 [r, F], y bool [r]) of this worker's candidates.
        add_up: sums a float64 vector over all workers, so that each fits to everybody's.
        products: whether the features' products get weights.
        start: a fit to like examples, from which fewer steps are left; its scaling is kept.
    """
    mean, scale = (start.mean, start.scale) if start else _scaling(blocks, add_up)
    weights = np.zeros(_SIZES["weights"] if products else 1 + WIDTH)
    if start:
        weights = start.weights[: len(weights)].copy()
    best, step = np.inf, np.zeros_like(weights)
    workers = float(add_up(np.ones(1))[0])
    for _ in range(_STEPS):
        loss, gradient, curvature = _sums(blocks, mean, scale, weights + step, add_up)
        if not loss < best:
            if not step.any() or np.abs(step).max() < 1e-6:
                break
            step = step / 2  # Newton overshot
            continue
        weights, gained, best = weights + step, best - loss, loss
        if gained < 1e-6 * max(best, 1.0):
            break
        # The mean of all workers' solutions: processors may differ in the last bit of a solution,
        # and workers that part ways would wait for each other for ever.
        step = add_up(np.linalg.solve(curvature, -gradient)) / workers
    return Blend(mean, scale, np.pad(weights, (0, _SIZES["weights"] - len(weights))))


def _scaling(
    blocks: Sequence[tuple[np.ndarray, np.ndarray]], add_up: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(mean, 1 / standard deviation) of the features over all workers, float64 [F] each."""
    sums = np.zeros(1 + 2 * WIDTH)
    for x, _ in blocks:
        wide = x.astype(np.float64)
        sums += np.concatenate([[len(wide)], wide.sum(0), np.square(wide).sum(0)])
    count, first, second = np.split(add_up(sums), [1, 1 + WIDTH])
    mean = first / max(float(count[0]), 1.0)
    variance = np.maximum(second / max(float(count[0]), 1.0) - np.square(mean), 0.0)
    # A feature that does not vary says nothing: it stays, at zero.
    varies = variance > 1e-10 * (1.0 + np.square(mean))
    return mean, np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 1.0)


def _sums(
    blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    mean: np.ndarray,
    scale: np.ndarray,
    weights: np.ndarray,
    add_up: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, np.ndarray, np.ndarray]:
    """Penalised loss, gradient and curvature at ``weights``, over all workers."""
    size = len(weights)
    loss, gradient, curvature = 0.0, np.zeros(size), np.zeros((size, size))
    for x, y in blocks:
        for first in range(0, len(x), _ROWS):
            scaled = (x[first : first + _ROWS] - mean) * scale
            wide = _expand(np.clip(scaled, -_FAR, _FAR))[:, :size]
            truth = y[first : first + _ROWS]
            product = wide @ weights
            p = expit(product)
            loss += float((np.logaddexp(0.0, product) - truth * product).sum())
            gradient += wide.T @ (p - truth)
            curvature += (wide * (p * (1 - p))[:, None]).T @ wide
    total = add_up(np.concatenate([[loss], gradient, curvature.ravel()]))
    ridge = np.full(size, _RIDGE)
    ridge[0] = 1e-6  # the constant is free, but the curvature has to be invertible
    return (
        float(total[0]) + 0.5 * float(ridge @ np.square(weights)),
        total[1 : 1 + size] + ridge * weights,
        total[1 + size :].reshape(size, size) + np.diag(ridge),
    )


def _expand(x: np.ndarray) -> np.ndarray:
    """float64 [r, 1 + F + F (F + 1) / 2]: constant, features and their products."""
    return np.concatenate([np.ones((len(x), 1)), x, x[:, _PAIRS[0]] * x[:, _PAIRS[1]]], axis=1)
