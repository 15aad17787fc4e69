"""Candidate labels: searching a range's two indexes, and merging the answers of several ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.shortlist import LabelIndex, best_k

GIVEN = "given"


@dataclass(frozen=True)
class Found:
    """Candidate labels of a block of n documents, from one range or merged over all.

    Attributes:
        labels: {source: int32 [n, k]}, best first under that source, −1 for none. The source
            ``GIVEN`` holds labels that were not found but handed in to be scored.
        cosines: {source: float32 [n, k]}, cosine to the label's proxy.
        logits: {source: float32 [n, k]}, the classifier's score; 0 where it was not asked for or
            the classifier has no rows yet (likewise ``cosines``).
    """

    labels: dict[str, np.ndarray]
    cosines: dict[str, np.ndarray]
    logits: dict[str, np.ndarray]

    @staticmethod
    def merge(parts: list[Found], k: int) -> Found:
        """The k best over several ranges, source by source."""
        merged = Found({}, {}, {})
        for source in parts[0].labels:
            if source == GIVEN:
                # Each part scored those of its own range and left the others at zero.
                merged.labels[source] = parts[0].labels[source]
                merged.cosines[source] = sum_of([part.cosines[source] for part in parts])
                merged.logits[source] = sum_of([part.logits[source] for part in parts])
                continue
            labels = np.concatenate([part.labels[source] for part in parts], 1)
            cosines = np.concatenate([part.cosines[source] for part in parts], 1)
            logits = np.concatenate([part.logits[source] for part in parts], 1)
            by = cosines if source == "proxy" else logits
            chosen = best_k(labels, by, k, cosines, logits)
            merged.labels[source] = chosen[0]
            merged.cosines[source], merged.logits[source] = chosen[2], chosen[3]
        return merged


def search_indexes(
    z_nD: np.ndarray,
    k: int,
    sources: tuple[str, ...],
    proxies: LabelIndex | None,
    rows: LabelIndex | None,
    both_scores: bool,
    given: np.ndarray | None = None,
) -> Found:
    """Searches the proxies and/or the classifier rows of the same labels.

    Args:
        given: int32 [n, m], further labels to score, −1 for none; those without a proxy or row
            here get zeros.
    """
    unit_nD, extended = queries_of(z_nD)
    found = Found({}, {}, {})
    for source in sources:
        index = proxies if source == "proxy" else rows
        assert index is not None, f"no {source} index was built"
        places, scores = index.search(unit_nD if source == "proxy" else extended, k)
        other, query = (rows, extended) if source == "proxy" else (proxies, unit_nD)
        if both_scores and other is not None:
            across = other.scores_at(query, places)
        else:
            across = np.zeros_like(scores)
        named = np.append(index.labels, np.int32(-1))  # place −1 reads the last: no label
        found.labels[source] = named[places]
        found.cosines[source] = scores if source == "proxy" else across
        found.logits[source] = across if source == "proxy" else scores
    if given is not None:
        found.labels[GIVEN] = given
        found.cosines[GIVEN] = _scores_of(proxies, unit_nD, given)
        found.logits[GIVEN] = _scores_of(rows, extended, given)
    return found


def queries_of(z_nD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What proxies and classifier rows are asked: (unit embeddings float32 [n, D], embeddings
    with a 1 behind each for the bias, float32 [n, D + 1])."""
    norms = np.sqrt(np.einsum("nd,nd->n", z_nD, z_nD))
    unit_nD = z_nD / np.maximum(norms, 1e-12)[:, None]
    return unit_nD, np.concatenate([z_nD, np.ones((len(z_nD), 1), np.float32)], 1)


def sum_of(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _scores_of(index: LabelIndex | None, queries: np.ndarray, given: np.ndarray) -> np.ndarray:
    """float32 [n, m]: the index's scores of the given labels, 0 for those not in it."""
    if index is None or len(index.labels) == 0:
        return np.zeros(given.shape, np.float32)
    places = np.minimum(np.searchsorted(index.labels, given), len(index.labels) - 1)
    held = index.labels[places] == given
    scores = index.scores_at(queries, np.where(held, places, 0))
    return np.where(held, scores, np.float32(0))
