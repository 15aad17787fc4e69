"""One calibrated score out of all that is known of a (document, label) pair.

    score = σ(w · x),   x = (logit, cosine, votes …, log label count, 1)

LightDXML's own score, β·σ(classifier) + (1 − β)·σ(cosine), is a fixed form with one number to
choose. A logistic regression over the same two and the neighbours' votes has a handful, fitted
to the validation documents' candidates by Newton's method; its scores are probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    "constant",
)
_LEAST = 1e-3  # stands for no votes at all inside a logarithm
_RIDGE = 1e-2  # keeps a feature that never varies from an arbitrary weight
_STEPS = 30


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
            np.log(np.maximum(counts, 1)).astype(np.float32)[self.labels],
            np.ones_like(self.logits),
        ]
        return np.stack(parts, axis=-1).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Blend:
    """The weights of the score.

    Attributes:
        weights: float64 [F], one for each of ``NAMES``.
    """

    weights: np.ndarray

    def as_dict(self) -> dict[str, float]:
        """The weights by name, for JSON."""
        return dict(zip(NAMES, map(float, self.weights), strict=True))

    @staticmethod
    def from_dict(named: dict[str, float]) -> Blend:
        """The inverse of ``as_dict``.

        Raises:
            KeyError: a weight is missing.
        """
        return Blend(np.array([float(named[name]) for name in NAMES]))

    def scores(self, evidence: Evidence, counts: np.ndarray) -> np.ndarray:
        """float32 [n, m] in [0, 1]."""
        product = evidence.features(counts) @ self.weights.astype(np.float32)
        return np.asarray(expit(product), np.float32)


# Where no validation documents are set aside to fit it: rounded from fits on several data sets.
DEFAULT = Blend(np.array([0.5, 1.0, 0.0, 1.0, 0.3, 0.3, 0.0, 1.0, 0.2, 0.0, 0.3, 0.0, 0.0]))


def fit(
    blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    add_up: Callable[[np.ndarray], np.ndarray] = lambda own: own,
) -> Blend:
    """Maximum likelihood of the candidates' truth, by Newton's method with a little ridge.

    Args:
        blocks: (x float32 [r, F], y bool [r]) of this worker's candidates.
        add_up: sums a float64 vector over all workers, so that each fits to everybody's.
    """
    width = len(NAMES)
    weights = np.zeros(width)
    best = np.inf
    step = np.zeros(width)
    for _ in range(_STEPS):
        loss, gradient, curvature = _sums(blocks, weights + step, add_up)
        if not loss < best:
            if not step.any() or np.abs(step).max() < 1e-6:
                break
            step = step / 2  # Newton overshot
            continue
        weights, gained, best = weights + step, best - loss, loss
        if gained < 1e-9 * max(best, 1.0):
            break
        step = np.linalg.solve(curvature, -gradient)
    return Blend(weights)


def _sums(
    blocks: Sequence[tuple[np.ndarray, np.ndarray]],
    weights: np.ndarray,
    add_up: Callable[[np.ndarray], np.ndarray],
) -> tuple[float, np.ndarray, np.ndarray]:
    """Penalised loss, gradient and curvature at ``weights``, over all workers."""
    width = len(weights)
    loss, gradient, curvature = 0.0, np.zeros(width), np.zeros((width, width))
    for x, y in blocks:
        wide = x.astype(np.float64)
        product = wide @ weights
        p = expit(product)
        loss += float((np.logaddexp(0.0, product) - y * product).sum())
        gradient += wide.T @ (p - y)
        curvature += (wide * (p * (1 - p))[:, None]).T @ wide
    total = add_up(np.concatenate([[loss], gradient, curvature.ravel()]))
    ridge = 0.5 * _RIDGE * float(weights @ weights)
    return (
        float(total[0]) + ridge,
        total[1 : 1 + width] + _RIDGE * weights,
        total[1 + width :].reshape(width, width) + _RIDGE * np.eye(width),
    )
