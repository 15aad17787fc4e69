"""Accuracy metrics of extreme classification as sums that can be added up.

Documents stream through ``MetricSums.update`` in blocks; every metric is a ratio of sums over
documents, so workers evaluate their own blocks and add their sums (``merge`` or an all-reduce of
``as_array``). With y the true labels of a document, r its ranked predictions and q_l the inverse
propensity of label l:

    P@k       mean of |r[:k] ∩ y| / k
    R@k       mean of |r[:k] ∩ y| / |y|
    nDCG@k    mean of DCG@k / I(min(k, |y|)); DCG@k = Σ_{i≤k} [r_i ∈ y] / log2(i + 1), and
              I(n) = Σ_{i≤n} 1 / log2(i + 1)
    PSP@k     G / G*, G = Σ_documents Σ_{i≤k} [r_i ∈ y] q_{r_i}; G* is the G of the best ranking
    PSnDCG@k  the same ratio for Σ_{i≤k} [r_i ∈ y] q_{r_i} / log2(i + 1), each document's sum
              divided by I(min(k, |y|)) in G and in G*

Sources: Jain, Prabhu, Varma, "Extreme Multi-label Loss Functions for Recommendation, Tagging,
Ranking & Other Missing Label Applications", KDD 2016, and the evaluation code of the Extreme
Classification Repository (pyxclib), which napkinxc's numbers agree with: the propensity-scored
metrics are ratios of sums over all documents, not means of ratios.

A document without true labels counts as a document and scores 0 in P, R and nDCG; it adds nothing
to either side of PSP and PSnDCG. A metric with nothing to divide by (no documents, no true
labels, an empty bin) is 0. Predictions beyond the end of a short list, and ids of -1, are wrong
ones.

Shape suffixes: B documents of a block, K positions of a ranking, C the cut-offs ``ks``, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np

from ray_xml.sparse import Csr

BINS = ("head", "torso", "tail")


def frequency_bins(label_counts: np.ndarray) -> np.ndarray:
    """Splits the labels into head, torso and tail of about equal numbers of train pairs.

    With the labels sorted from most to least frequent, a label is head when the labels strictly
    more frequent than it hold less than a third of all (document, label) train pairs, torso when
    they hold less than two thirds, and tail otherwise. Labels unseen in train are always tail.
    Equally frequent labels thus share a bin, and the split means the same at any size of data
    set, which a fixed threshold such as 5 documents would not.

    Args:
        label_counts: int64 [L], train documents of each label.

    Returns:
        int8 [L], indices into ``BINS``.
    """
    counts = np.asarray(label_counts, np.int64)
    values, label_to_value, labels_of_value = np.unique(
        counts, return_inverse=True, return_counts=True
    )
    pairs = values * labels_of_value
    above = pairs.sum() - np.cumsum(pairs)  # train pairs of strictly more frequent labels
    # Integers on both sides: a label exactly at a third must not depend on rounding.
    bins = np.where(3 * above < pairs.sum(), 0, np.where(3 * above < 2 * pairs.sum(), 1, 2))
    bins[values == 0] = 2
    return bins[label_to_value].astype(np.int8)


class Row(IntEnum):
    """Rows of the table of sums [rows, C]; the first three are correct predictions by bin."""

    HITS_HEAD = 0
    HITS_TORSO = 1
    HITS_TAIL = 2
    RECALL = 3
    NDCG = 4
    PSP = 5
    PSP_BEST = 6
    PSNDCG = 7
    PSNDCG_BEST = 8


class MetricSums:
    """The sums behind all metrics, over the documents seen so far.

    Args:
        inverse_propensities: float [L], ``1 / propensities(...)``.
        label_counts: int64 [L], train documents of each label, for the bins (``frequency_bins``).
        ks: the cut-offs; distinct, at least 1.
    """

    def __init__(
        self,
        inverse_propensities: np.ndarray,
        label_counts: np.ndarray,
        ks: Sequence[int] = (1, 3, 5),
    ) -> None:
        self.inverse_propensities = np.asarray(inverse_propensities, np.float64)
        self.bin_of_label = frequency_bins(label_counts)
        if self.inverse_propensities.shape != self.bin_of_label.shape:
            shapes = f"{self.inverse_propensities.shape} and {self.bin_of_label.shape}"
            raise ValueError(f"inverse propensities and label counts are {shapes}, not both [L]")
        if not (self.inverse_propensities >= 1).all():
            raise ValueError("inverse propensities must be at least 1: 1 / propensities(...)")
        if not ks or min(ks) < 1 or len(set(ks)) < len(ks):
            raise ValueError(f"ks is {tuple(ks)}; it must hold distinct numbers of at least 1")
        self.ks = tuple(ks)
        # All state is one vector [documents, true pairs by bin, table row by row], so that
        # merging, sending and restoring cannot forget a part.
        self._sums = np.zeros(1 + len(BINS) + len(Row) * len(ks), np.float64)

    @property
    def documents(self) -> int:
        """The number of documents seen."""
        return int(self._sums[0])

    @property
    def _pairs(self) -> np.ndarray:
        return self._sums[1 : 1 + len(BINS)]

    @property
    def _table(self) -> np.ndarray:
        return self._sums[1 + len(BINS) :].reshape(len(Row), len(self.ks))

    def update(self, predicted_BK: np.ndarray, label_rows: Csr) -> None:
        """Adds a block of documents.

        Reciprocal pairs, where a data set asks for it, are to be filtered out before.

        Args:
            predicted_BK: integer [B, K], label ids, best first; -1 = nothing. Only the first
                ``max(ks)`` positions are read.
            label_rows: [B, L], the true labels: the stored entries, whatever their values.

        Raises:
            ValueError: shapes disagree, an id is out of range, a label is predicted twice for
                a document within the positions read, or a row of ``label_rows`` is unsorted.
        """
        rows = label_rows.packed()
        self.add(self.contributions(predicted_BK, rows), rows)

    def add(self, table: np.ndarray, rows: Csr) -> None:
        """Adds a block of documents by their ``contributions`` and packed labels."""
        self._table[:] += table.sum(1)
        self._pairs[:] += np.bincount(self.bin_of_label[rows.ids], minlength=len(BINS))
        self._sums[0] += rows.num_rows

    def contributions(self, predicted_BK: np.ndarray, label_rows: Csr) -> np.ndarray:
        """What each document adds to the table of sums; arguments and errors are those of
        ``update``.

        Returns:
            float64 [rows of the table, B, C].
        """
        rows = label_rows.packed()
        true_ids = np.asarray(rows.ids, np.int64)
        top_BK = self._checked_top(predicted_BK, rows, true_ids)
        width, true_rows = max(self.ks), rows.row_of_entry()
        hits_BK = hits(top_BK, rows)
        gains_BK = np.where(hits_BK, self.inverse_propensities[top_BK], 0.0)
        best_BK = self._best_gains(rows, true_rows, true_ids)

        cut = np.array(self.ks) - 1
        discount_K = 1.0 / np.log2(np.arange(width) + 2.0)
        true_B = np.maximum(rows.counts, 1)[:, None]  # 1: a document without labels scores 0 / 1
        norm_BC = np.cumsum(discount_K)[np.minimum(cut, true_B - 1)]
        table = np.empty((len(Row), rows.num_rows, len(cut)))
        for b in range(len(BINS)):
            table[b] = (hits_BK & (self.bin_of_label[top_BK] == b)).cumsum(1)[:, cut]
        table[Row.RECALL] = hits_BK.cumsum(1)[:, cut] / true_B
        table[Row.NDCG] = (hits_BK * discount_K).cumsum(1)[:, cut] / norm_BC
        for gains, psp, psndcg in (
            (gains_BK, Row.PSP, Row.PSNDCG),
            (best_BK, Row.PSP_BEST, Row.PSNDCG_BEST),
        ):
            table[psp] = gains.cumsum(1)[:, cut]
            table[psndcg] = (gains * discount_K).cumsum(1)[:, cut] / norm_BC
        return table

    def _checked_top(self, predicted_BK: np.ndarray, rows: Csr, true_ids: np.ndarray) -> np.ndarray:
        """int64 [B, max(ks)]: the positions that count, -1 past the end, inputs checked."""
        num_labels, width = len(self.bin_of_label), max(self.ks)
        if rows.num_columns != num_labels:
            raise ValueError(f"label_rows has {rows.num_columns} columns for {num_labels} labels")
        if predicted_BK.ndim != 2 or len(predicted_BK) != rows.num_rows:
            raise ValueError(f"predicted_BK is {predicted_BK.shape}, not [{rows.num_rows}, K]")
        if predicted_BK.dtype.kind not in "iu":
            raise ValueError(f"predicted_BK is {predicted_BK.dtype}; it must hold integer ids")
        top_BK = np.full((rows.num_rows, width), -1, np.int64)
        top_BK[:, : predicted_BK.shape[1]] = predicted_BK[:, :width]
        for name, ids, low in (("predicted_BK", top_BK, -1), ("label_rows", true_ids, 0)):
            if ids.size and (ids.min() < low or ids.max() >= num_labels):
                span = f"{ids.min()} to {ids.max()}, not within {low} to {num_labels - 1}"
                raise ValueError(f"{name} has ids from {span}")
        # A label named twice would score twice. Only max(ks) positions are sorted, so it is cheap.
        ordered = np.sort(top_BK, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if twice.any():
            row, column = np.argwhere(twice)[0]
            raise ValueError(f"row {row} of predicted_BK names label {ordered[row, column]} twice")
        return top_BK

    def _best_gains(self, rows: Csr, true_rows: np.ndarray, true_ids: np.ndarray) -> np.ndarray:
        """float64 [B, max(ks)]: each document's highest inverse propensities, descending."""
        gains = self.inverse_propensities[true_ids]
        gains = gains[np.lexsort((-gains, true_rows))]
        position = np.arange(len(gains)) - np.repeat(rows.offsets[:-1], rows.counts)
        keep = position < max(self.ks)
        best_BK = np.zeros((rows.num_rows, max(self.ks)))
        best_BK[true_rows[keep], position[keep]] = gains[keep]
        return best_BK

    def merge(self, other: MetricSums) -> None:
        """Adds the sums of ``other``, which must have the same cut-offs and number of labels."""
        if self.ks != other.ks or len(self.bin_of_label) != len(other.bin_of_label):
            mine, theirs = (f"ks {m.ks}, {len(m.bin_of_label)} labels" for m in (self, other))
            raise ValueError(f"cannot merge sums for {mine} with sums for {theirs}")
        self._sums += other._sums

    def as_array(self) -> np.ndarray:
        """float64 [4 + 9·len(ks)]: all sums; such vectors add up like ``merge``."""
        return self._sums.copy()

    def from_array(self, sums: np.ndarray) -> MetricSums:
        """A new object with this one's labels and cut-offs and the given sums (copied)."""
        if np.shape(sums) != self._sums.shape:
            raise ValueError(f"sums is {np.shape(sums)}; it must be {self._sums.shape}")
        restored = MetricSums.__new__(MetricSums)
        restored.__dict__.update(self.__dict__)  # shares the [L] arrays, which nothing writes to
        restored._sums = np.array(sums, np.float64)
        return restored

    def result(self) -> dict[str, float]:
        """All metrics in percent.

        Keys: "P@k", "nDCG@k", "PSP@k", "PSnDCG@k", "R@k", then for each bin of ``BINS``
        "P@k/bin", the part of P@k that labels of the bin contribute (the bins add up to P@k), and
        "R@k/bin", the share of the (document, true label) pairs whose label lies in the bin that
        are found in the top k. R@k/bin is a mean over pairs, R@k one over documents.
        """
        table, cut = self._table, np.array(self.ks)
        hits, documents = table[: len(BINS)], self._sums[:1]
        columns = {
            ("P", ""): _ratio(hits.sum(0), cut * documents),
            ("nDCG", ""): _ratio(table[Row.NDCG], documents),
            ("PSP", ""): _ratio(table[Row.PSP], table[Row.PSP_BEST]),
            ("PSnDCG", ""): _ratio(table[Row.PSNDCG], table[Row.PSNDCG_BEST]),
            ("R", ""): _ratio(table[Row.RECALL], documents),
        }
        for b, name in enumerate(BINS):
            columns["P", f"/{name}"] = _ratio(hits[b], cut * documents)
            columns["R", f"/{name}"] = _ratio(hits[b], self._pairs[b : b + 1])
        return {
            f"{metric}@{k}{suffix}": 100.0 * float(value)
            for (metric, suffix), values in columns.items()
            for k, value in zip(self.ks, values, strict=True)
        }


def hits(labels_BK: np.ndarray, label_rows: Csr) -> np.ndarray:
    """Which predictions are right, bool [B, K].

    Args:
        labels_BK: integer [B, K], label ids, -1 = nothing.
        label_rows: [B, L], the true labels.

    Raises:
        ValueError: a row of ``label_rows`` is unsorted.
    """
    rows = label_rows.packed()
    # (document, label) as one ascending integer key: membership is one binary search.
    true_keys = rows.row_of_entry() * rows.num_columns + rows.ids
    if (np.diff(true_keys) <= 0).any():
        raise ValueError("label_rows has a row whose ids are not strictly ascending")
    keys_BK = np.arange(rows.num_rows)[:, None] * rows.num_columns + labels_BK
    # The sentinel stops the search at the last key; the key of -1 is that of the previous
    # document's last label, hence the second condition.
    found = np.append(true_keys, -1)[np.searchsorted(true_keys, keys_BK)] == keys_BK
    return np.asarray(found & (labels_BK >= 0))


def _ratio(top_C: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """float64 [C]: top / bottom, where bottom is [C] or [1]; 0 where bottom is 0."""
    bottom_C = np.broadcast_to(bottom, top_C.shape)
    result_C = np.zeros(len(top_C))
    np.divide(top_C, bottom_C, out=result_C, where=bottom_C > 0)
    return result_C


def top_labels_baseline(label_counts: np.ndarray, k: int) -> np.ndarray:
    """The most frequent labels, to predict for every document: the baseline to beat.

    Args:
        label_counts: int64 [L], train documents of each label.
        k: how many labels.

    Returns:
        int32 [k], ties by lower id; -1 past the last label where k > L.
    """
    top = np.full(k, -1, np.int32)
    order = np.argsort(-np.asarray(label_counts, np.int64), kind="stable")[:k]
    top[: len(order)] = order
    return top


def format_table(rows: Mapping[str, Mapping[str, float]], keys: Sequence[str]) -> str:
    """An aligned table: one line per model, one column per metric, "-" where one is missing."""
    cells = [["", *keys]]
    for model, metrics in rows.items():
        cells.append([model, *(f"{metrics[key]:.2f}" if key in metrics else "-" for key in keys)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(keys) + 1)]
    lines = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells)
    return "\n".join("  ".join(line).rstrip() for line in lines)
