"""The metrics against hand-worked numbers, napkinxc, and themselves in blocks."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from ray_xml.metrics import (
    BINS,
    MetricSums,
    format_table,
    frequency_bins,
    top_labels_baseline,
)
from ray_xml.propensity import propensities
from ray_xml.sparse import Csr

METRICS = ("P", "nDCG", "PSP", "PSnDCG", "R")


def random_block(
    rng: np.random.Generator, documents: int, labels: int, width: int
) -> tuple[np.ndarray, Csr]:
    """Rankings with -1 at any place, some wholly empty, and 0 to 9 true labels a document."""
    predicted = np.argsort(rng.random((documents, labels)), axis=1)[:, :width].astype(np.int32)
    predicted[rng.random(predicted.shape) < 0.1] = -1
    predicted[rng.random(documents) < 0.1] = -1
    truth = [
        sorted(rng.choice(labels, min(labels, int(rng.integers(0, 10))), replace=False).tolist())
        for _ in range(documents)
    ]
    return predicted, Csr.from_lists(truth, labels)


def random_sums(rng: np.random.Generator, labels: int, ks: tuple[int, ...]) -> MetricSums:
    """Empty sums over labels of which some are tied in frequency and some unseen in train."""
    counts = rng.integers(0, 8, labels) ** 2
    return MetricSums(1 / propensities(counts, 500, 0.55, 1.5), counts, ks)


def as_lists(rows: Csr) -> list[list[int]]:
    return [rows.ids[a:b].tolist() for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)]


# --- hand-worked metrics -------------------------------------------------------------------------


def tiny() -> MetricSums:
    """Three documents over five labels.

    inverse propensities  q = 1, 2, 4, 8, 16; train counts 30, 20, 10, 5, 0
    document 0: true {0, 3}     predicted 3, 1, 0   hits at 1 (q=8) and 3 (q=1)
    document 1: true {2}        predicted 0, 2, -1  hit at 2 (q=4)
    document 2: true {}         predicted 4, 1, 2   none
    """
    sums = MetricSums(np.array([1.0, 2, 4, 8, 16]), np.array([30, 20, 10, 5, 0]), ks=(1, 3))
    predicted = np.array([[3, 1, 0], [0, 2, -1], [4, 1, 2]], np.int32)
    sums.update(predicted, Csr.from_lists([[0, 3], [2], []], 5))
    return sums


def test_tiny_case_by_hand() -> None:
    sums = tiny()
    got = {key: value / 100 for key, value in sums.result().items()}
    log3, log4 = math.log2(3), 2.0
    assert sums.documents == 3
    assert got["P@1"] == pytest.approx(1 / 3)
    assert got["P@3"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert got["R@1"] == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert got["R@3"] == pytest.approx((1 + 1 + 0) / 3)
    assert got["nDCG@1"] == pytest.approx(1 / 3)
    both = 1 + 1 / log3  # the best DCG@3 of a document with two labels
    assert got["nDCG@3"] == pytest.approx(((1 + 1 / log4) / both + 1 / log3) / 3)
    assert got["PSP@1"] == pytest.approx(8 / (8 + 4))
    assert got["PSP@3"] == pytest.approx((8 + 1 + 4) / (8 + 1 + 4))
    assert got["PSnDCG@1"] == pytest.approx(8 / (8 + 4))
    assert got["PSnDCG@3"] == pytest.approx(
        ((8 + 1 / log4) / both + 4 / log3) / ((8 + 1 / log3) / both + 4)
    )


def test_tiny_case_bins_by_hand() -> None:
    # 65 train pairs, thirds at 21.7 and 43.3: 0 before label 0, 30 before 1, 50 before 2, so
    # label 0 is head, 1 torso, 2, 3 and 4 tail.
    got = tiny().result()
    assert [got[f"P@3/{name}"] for name in BINS] == pytest.approx([100 / 9, 0, 200 / 9])
    # True pairs: (0, label 0) head; (0, label 3) and (1, label 2) tail; torso has none.
    assert [got[f"R@1/{name}"] for name in BINS] == pytest.approx([0, 0, 50])
    assert [got[f"R@3/{name}"] for name in BINS] == pytest.approx([100, 0, 100])


# --- against napkinxc ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "width", "ks"),
    [
        (40, 5, (1, 3, 5)),
        (40, 12, (1, 3, 5)),  # more predictions than are scored
        (40, 2, (1, 3, 5)),  # fewer predictions than k
        (40, 0, (1, 3, 5)),  # no predictions at all
        (3, 3, (5, 1, 130)),  # k above the number of labels; cut-offs in any order
        (200, 100, (70, 100)),
        (1, 1, (1,)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_matches_napkinxc(labels: int, width: int, ks: tuple[int, ...], seed: int) -> None:
    reference = pytest.importorskip("napkinxc.metrics")
    rng = np.random.default_rng(seed)
    sums = random_sums(rng, labels, ks)
    predicted, truth = random_block(rng, 60, labels, width)
    sums.update(predicted, truth)
    got = sums.result()

    true_lists, weights, top = as_lists(truth), sums.inverse_propensities, max(ks)
    # napkinxc has no "nothing" id: one above all labels is never true, so it is just as wrong.
    rankings = np.where(predicted < 0, labels, predicted).tolist()
    weights = np.append(weights, 0.0)
    expected = {
        "P": reference.precision_at_k(true_lists, rankings, k=top),
        "R": reference.recall_at_k(true_lists, rankings, k=top),
        "nDCG": reference.ndcg_at_k(true_lists, rankings, k=top),
        "PSP": reference.psprecision_at_k(true_lists, rankings, weights, k=top),
        "PSnDCG": reference.psndcg_at_k(true_lists, rankings, weights, k=top),
    }
    for metric, values in expected.items():
        for k in ks:
            assert got[f"{metric}@{k}"] == pytest.approx(100 * values[k - 1], abs=1e-9), metric


# --- properties ----------------------------------------------------------------------------------


def test_bins_add_up_and_recall_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    sums = random_sums(rng, 40, (1, 3, 5))
    predicted, truth = random_block(rng, 80, 40, 8)
    sums.update(predicted, truth)
    got = sums.result()
    for k in sums.ks:
        assert sum(got[f"P@{k}/{name}"] for name in BINS) == pytest.approx(got[f"P@{k}"])
        for b, name in enumerate(BINS):
            found = [
                label in ranking[:k]
                for ranking, true in zip(predicted.tolist(), as_lists(truth), strict=True)
                for label in true
                if sums.bin_of_label[label] == b
            ]
            assert got[f"R@{k}/{name}"] == pytest.approx(100 * np.mean(found))


def test_perfect_ranking_scores_100() -> None:
    rng = np.random.default_rng(4)
    sums = random_sums(rng, 40, (1, 5))
    truth = [sorted(rng.choice(40, 5, replace=False).tolist()) for _ in range(20)]
    best = [sorted(true, key=lambda label: -sums.inverse_propensities[label]) for true in truth]
    sums.update(np.array(best, np.int32), Csr.from_lists(truth, 40))
    got = sums.result()
    for key in ("P@1", "P@5", "nDCG@1", "nDCG@5", "PSP@1", "PSP@5", "PSnDCG@5", "R@5"):
        assert got[key] == pytest.approx(100.0), key


def test_blocks_merged_in_any_order_give_the_same_sums() -> None:
    rng = np.random.default_rng(5)
    whole = random_sums(rng, 40, (1, 3, 5))
    predicted, truth = random_block(rng, 90, 40, 6)
    whole.update(predicted, truth)
    parts = []
    for start, stop in ((0, 1), (1, 40), (40, 40), (40, 90)):
        part = whole.from_array(np.zeros_like(whole.as_array()))
        for low in range(start, stop, 17):  # slices whose offsets do not start at 0
            high = min(low + 17, stop)
            part.update(predicted[low:high], truth.slice(low, high))
        parts.append(part)
    for order in permutations(parts):
        total = whole.from_array(np.zeros_like(whole.as_array()))
        for part in order:
            total.merge(part)
        assert total.documents == 90
        np.testing.assert_allclose(total.as_array(), whole.as_array(), rtol=1e-12)
        assert total.result() == pytest.approx(whole.result(), rel=1e-12)
    reduced = np.sum([part.as_array() for part in parts], axis=0)  # as an all-reduce would
    assert whole.from_array(reduced).result() == pytest.approx(whole.result(), rel=1e-12)


def test_the_array_is_a_copy_both_ways() -> None:
    sums = tiny()
    array = sums.as_array()
    other = sums.from_array(array)
    array[:] = 0
    assert other.result() == sums.result()
    other.merge(sums)
    assert (other.documents, sums.documents) == (6, 3)
    assert other.result() == pytest.approx(sums.result())


def test_nothing_seen_is_zero() -> None:
    sums = MetricSums(np.ones(4), np.arange(4))
    assert set(sums.result().values()) == {0.0}
    sums.update(np.empty((0, 5), np.int32), Csr.from_lists([], 4))
    assert sums.documents == 0
    sums.update(np.array([[0, 1]], np.int32), Csr.from_lists([[]], 4))
    assert sums.documents == 1
    assert set(sums.result().values()) == {0.0}


def test_result_keys() -> None:
    names = {f"{metric}@{k}" for metric in METRICS for k in (1, 3, 5)}
    names |= {f"{metric}@{k}/{name}" for metric in "PR" for k in (1, 3, 5) for name in BINS}
    assert set(MetricSums(np.ones(2), np.ones(2, np.int64)).result()) == names


def test_inputs_are_left_alone() -> None:
    predicted, truth = random_block(np.random.default_rng(6), 10, 12, 5)
    predicted.flags.writeable = truth.ids.flags.writeable = truth.offsets.flags.writeable = False
    MetricSums(np.ones(12), np.ones(12, np.int64)).update(predicted, truth)


# --- misuse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.array([[1, 2, 1]]), Csr.from_lists([[1]], 4), "names label 1 twice"),
        (np.array([[4]]), Csr.from_lists([[1]], 4), "predicted_BK has ids from -1 to 4"),
        (np.array([[-2]]), Csr.from_lists([[1]], 4), "predicted_BK has ids from -2"),
        (np.array([[0]]), Csr.from_lists([[4]], 4), "label_rows has ids from 4"),
        (np.array([[0]]), Csr.from_lists([[1]], 5), "5 columns for 4 labels"),
        (np.array([[0], [1]]), Csr.from_lists([[1]], 4), r"not \[1, K\]"),
        (np.array([0]), Csr.from_lists([[1]], 4), r"not \[1, K\]"),
        (np.array([[0.5]]), Csr.from_lists([[1]], 4), "integer ids"),
        (np.array([[0]]), Csr.from_lists([[2, 1]], 4), "strictly ascending"),
        (np.array([[0]]), Csr.from_lists([[1, 1]], 4), "strictly ascending"),
    ],
)
def test_bad_blocks_are_refused_and_leave_no_trace(
    predicted: np.ndarray, truth: Csr, message: str
) -> None:
    sums = MetricSums(np.ones(4), np.arange(4))
    with pytest.raises(ValueError, match=message):
        sums.update(predicted, truth)
    assert not sums.as_array().any()


def test_repeats_outside_the_scored_positions_and_of_nothing_are_fine() -> None:
    sums = MetricSums(np.ones(4), np.arange(4), ks=(2,))
    sums.update(np.array([[1, 0, 1], [-1, -1, -1]]), Csr.from_lists([[1], [1]], 4))
    assert sums.result()["P@2"] == pytest.approx(25.0)


def test_bad_construction_and_merging_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1: 1 / propensities"):
        MetricSums(np.array([0.5]), np.array([1]))
    with pytest.raises(ValueError, match="at least 1: 1 / propensities"):
        MetricSums(np.array([np.nan]), np.array([1]))
    with pytest.raises(ValueError, match="not both"):
        MetricSums(np.ones(2), np.ones(3, np.int64))
    for ks in ((), (0, 1), (1, 1)):
        with pytest.raises(ValueError, match="ks is"):
            MetricSums(np.ones(2), np.ones(2, np.int64), ks)
    sums = MetricSums(np.ones(2), np.ones(2, np.int64))
    with pytest.raises(ValueError, match="cannot merge"):
        sums.merge(MetricSums(np.ones(2), np.ones(2, np.int64), (1,)))
    with pytest.raises(ValueError, match="cannot merge"):
        sums.merge(MetricSums(np.ones(3), np.ones(3, np.int64)))
    with pytest.raises(ValueError, match="it must be"):
        sums.from_array(np.zeros(3))


# --- bins, the baseline, the table ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([3, 3, 3], [0, 0, 0]),  # ties share a bin
        ([0, 0], [2, 2]),
        ([], []),
        ([6, 0, 6, 3, 3], [0, 2, 0, 2, 2]),  # 12 of 18 pairs before the 3s: exactly two thirds
        ([2, 1, 1, 1, 1], [0, 1, 1, 1, 1]),  # 2 of 6 before the 1s: exactly a third
        ([1, 5, 2, 4, 0], [2, 0, 2, 1, 2]),  # 5 of 12 pairs before the 4, 9 before the 2
    ],
)
def test_frequency_bins(counts: list[int], expected: list[int]) -> None:
    assert frequency_bins(np.array(counts, np.int64)).tolist() == expected


def test_top_labels_baseline() -> None:
    counts = np.array([2, 7, 0, 7, 2])
    top = top_labels_baseline(counts, 3)
    assert top.dtype == np.int32
    assert top.tolist() == [1, 3, 0]
    assert top_labels_baseline(np.tile([1, 2], 500), 500).tolist() == list(range(1, 1000, 2))
    assert top_labels_baseline(counts, 7).tolist() == [1, 3, 0, 4, 2, -1, -1]


def test_format_table() -> None:
    table = format_table(
        {"ours": {"P@1": 45.678, "R@5": 100.0}, "top": {"P@1": 0.5}}, ("P@1", "R@5")
    )
    assert table.splitlines() == [
        "        P@1     R@5",
        "ours  45.68  100.00",
        "top    0.50       -",
    ]
