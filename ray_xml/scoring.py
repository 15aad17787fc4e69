"""From candidates to predictions: score = β·σ(classifier) + (1 − β)·σ(cosine), best k first."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ray_xml.label_search import Found
from ray_xml.shortlist import best_k


def candidates(found: Found) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One candidate list a document, each label once, whichever sources named it.

    Returns:
        (labels int32 [n, m] with −1 for none, σ(logit) float32 [n, m], σ(cosine) float32 [n, m]).
    """
    labels = np.concatenate(list(found.labels.values()), 1)
    logits = np.concatenate(list(found.logits.values()), 1)
    cosines = np.concatenate(list(found.cosines.values()), 1)
    if len(found.labels) > 1:
        # Both sources give a label the same scores, so either copy may go.
        order = np.argsort(labels, axis=1, kind="stable")
        in_order = np.take_along_axis(labels, order, 1)
        repeats = np.zeros_like(labels, bool)
        repeats[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
        again = np.zeros_like(repeats)
        np.put_along_axis(again, order, repeats, 1)
        labels = np.where(again, np.int32(-1), labels)
    return labels, expit(logits), expit(cosines)


def top_k(
    labels: np.ndarray, by_classifier: np.ndarray, by_proxy: np.ndarray, beta: float, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates of each document.

    Returns:
        (labels int32 [n, k] with −1 for none, scores float32 [n, k] with −inf for none).
    """
    scores = np.float32(beta) * by_classifier + np.float32(1 - beta) * by_proxy
    best, best_scores = best_k(labels, scores, k)[:2]
    missing = k - best.shape[1]
    if missing > 0:
        best = np.pad(best, ((0, 0), (0, missing)), constant_values=-1)
        best_scores = np.pad(best_scores, ((0, 0), (0, missing)), constant_values=-np.inf)
    return best, best_scores
