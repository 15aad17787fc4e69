"""From what was found to predictions: candidates with their evidence, then the k best of them."""

from __future__ import annotations

import numpy as np

from ray_xml.blend import Evidence
from ray_xml.label_search import GIVEN, Found
from ray_xml.lexical import Answer
from ray_xml.shortlist import best_k


def candidates(found: Found, answer: Answer | None = None) -> Evidence:
    """One candidate list a document, each label once, whichever sources named it.

    Args:
        found: from the dense search; the labels voted for are among it as ``GIVEN``.
        answer: from the sparse channel; None where nothing but the labels is asked for.
    """
    # Copies of a label have the same scores but for votes, which only ``GIVEN`` has: it comes
    # first, and the first copy stays.
    sources = sorted(found.labels, key=lambda source: source != GIVEN)
    labels = np.concatenate([found.labels[source] for source in sources], 1)
    logits = np.concatenate([found.logits[source] for source in sources], 1)
    cosines = np.concatenate([found.cosines[source] for source in sources], 1)
    if len(sources) > 1:
        order = np.argsort(labels, axis=1, kind="stable")
        in_order = np.take_along_axis(labels, order, 1)
        repeats = np.zeros_like(labels, bool)
        repeats[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
        again = np.zeros_like(repeats)
        np.put_along_axis(again, order, repeats, 1)
        labels = np.where(again, np.int32(-1), labels)
    # Where there is no label a search gives −∞.
    logits, cosines = (np.where(labels < 0, np.float32(0), one) for one in (logits, cosines))
    none = np.zeros_like(logits)
    if answer is None:
        nobody = np.zeros(len(labels), np.float32)
        return Evidence(labels, logits, cosines, none, none, nobody, nobody, none, none)
    flat, sharp, votes = none, none.copy(), answer.votes
    voted = votes.labels.shape[1]
    flat[:, :voted], sharp[:, :voted] = votes.flat, votes.sharp
    return Evidence(
        labels,
        logits,
        cosines,
        flat,
        sharp,
        votes.flat_total,
        votes.sharp_total,
        *answer.fits(labels),
    )


def top_k(labels: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates of each document.

    Args:
        labels: int32 [n, m], −1 for none.
        scores: float32 [n, m].

    Returns:
        (labels int32 [n, k] with −1 for none, scores float32 [n, k] with −inf for none).
    """
    best, best_scores = best_k(labels, scores, k)[:2]
    missing = k - best.shape[1]
    if missing > 0:
        best = np.pad(best, ((0, 0), (0, missing)), constant_values=-1)
        best_scores = np.pad(best_scores, ((0, 0), (0, missing)), constant_values=-np.inf)
    return best, best_scores
