"""Who owns what: pure arithmetic that cuts labels, columns and documents into contiguous ranges.

Every place that splits work asks this module, so that a worker, a label shard and a checkpoint
agree on the ranges from the counts alone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

Range = tuple[int, int]


def even(total: int, parts: int) -> list[Range]:
    """``parts`` contiguous ranges over ``total`` items whose sizes differ by at most one."""
    edges = [total * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def label_ranges(label_counts: np.ndarray, parts: int) -> list[Range]:
    """Contiguous label ranges of about equal work.

    Memory grows with the number of labels, arithmetic with how often they occur in shortlists
    and as positives, so a label weighs half by number and half by frequency.

    Args:
        label_counts: int [L], documents of each label.
        parts: number of ranges, at most L.

    Returns:
        ``parts`` non-empty ranges (low, high) that cover 0..L in order.

    Raises:
        ValueError: fewer labels than ranges.
    """
    num_labels = len(label_counts)
    if parts > num_labels:
        raise ValueError(f"{num_labels} labels cannot be cut into {parts} non-empty ranges")
    total = max(int(label_counts.sum()), 1)
    weight = 0.5 / num_labels + 0.5 * np.asarray(label_counts, np.float64) / total
    reached = np.concatenate([[0.0], np.cumsum(weight)])
    edges = [0]
    for part in range(1, parts):
        target = reached[-1] * part / parts
        cut = int(np.searchsorted(reached, target))
        if target - reached[cut - 1] < reached[cut] - target:
            cut -= 1  # the label before is nearer
        # Keep at least one label on both sides of every cut.
        edges.append(min(max(cut, edges[-1] + 1), num_labels - (parts - part)))
    edges.append(num_labels)
    return list(pairwise(edges))


def overlap(a: Range, b: Range) -> Range | None:
    """The common part of two ranges, or None."""
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low < high else None


def epoch_order(num_documents: int, *, seed: int, epoch: int) -> np.ndarray:
    """int64 [N]: the seeded order in which an epoch visits the documents."""
    return np.random.default_rng([seed, epoch, 0x0DE7]).permutation(num_documents)


def validation_rows(num_documents: int, fraction: float, *, seed: int) -> np.ndarray:
    """int64, ascending: the documents of train that are set aside for validation."""
    count = round(num_documents * fraction)
    order = np.random.default_rng([seed, 0x5A11D]).permutation(num_documents)
    return np.sort(order[:count])
