"""The k best of several lists, ties to the lower label: the merge of ranges, sources and blocks."""

from __future__ import annotations

import numpy as np


def best_k(
    labels: np.ndarray, scores: np.ndarray, k: int, *extra: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The k best of each row, best first, ties to the lower label; the merge of several lists.

    Args:
        labels: int [n, m], −1 for none. Labels of a row are distinct, but for −1.
        scores: float [n, m].
        extra: further [n, m] arrays that follow the same selection.

    Returns:
        (labels, scores, *extra), each [n, min(k, m)]; −1 and −inf where a row has fewer.
    """
    scores = np.where(labels < 0, -np.inf, scores).astype(np.float32)
    # One int64 sorts by falling score, then by rising label: a float's bits, with the sign
    # handled, order as the floats do.
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    keys = (-ordered << 32) + labels.astype(np.int64)
    width = min(k, labels.shape[1])
    if width < labels.shape[1]:
        chosen = np.argpartition(keys, width - 1, axis=1)[:, :width]
    else:
        chosen = np.broadcast_to(np.arange(width), labels.shape)
    inner = np.argsort(np.take_along_axis(keys, chosen, 1), axis=1)
    chosen = np.take_along_axis(chosen, inner, 1)
    return tuple(np.take_along_axis(part, chosen, 1) for part in (labels, scores, *extra))
