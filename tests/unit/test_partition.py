"""Ranges: they cover, they do not overlap, they balance."""

from __future__ import annotations

import numpy as np
import pytest

from ray_xml.partition import (
    Range,
    epoch_order,
    even,
    label_ranges,
    overlap,
    validation_rows,
)


def covers(ranges: list[Range], total: int) -> bool:
    return [item for low, high in ranges for item in range(low, high)] == list(range(total))


@pytest.mark.parametrize(("total", "parts"), [(10, 1), (10, 3), (3, 5), (0, 2), (300, 7)])
def test_even_ranges_cover_and_differ_by_at_most_one(total: int, parts: int) -> None:
    ranges = even(total, parts)
    assert len(ranges) == parts
    assert covers(ranges, total)
    sizes = [high - low for low, high in ranges]
    assert max(sizes) - min(sizes) <= 1


def test_label_ranges_cover_and_are_never_empty() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        num_labels = int(rng.integers(1, 40))
        parts = int(rng.integers(1, num_labels + 1))
        counts = rng.integers(0, 1 + 10 ** rng.integers(0, 6), num_labels)
        ranges = label_ranges(counts, parts)
        assert len(ranges) == parts
        assert covers(ranges, num_labels)
        assert min(high - low for low, high in ranges) >= 1


def test_label_ranges_balance_number_and_frequency() -> None:
    counts = (100_000 / (1 + np.arange(5000))).astype(np.int64)  # the head comes first
    weight = 0.5 / len(counts) + 0.5 * counts / counts.sum()
    ranges = label_ranges(counts, 4)
    shares = [weight[low:high].sum() for low, high in ranges]
    # A cut is off by at most one label, and the heaviest label weighs the most.
    assert max(shares) - min(shares) < 2 * weight.max()
    sizes = [high - low for low, high in ranges]
    assert sizes == sorted(sizes)


def test_a_huge_label_gets_a_range_of_its_own() -> None:
    assert label_ranges(np.array([1, 1, 10**9, 1, 1]), 5) == [(i, i + 1) for i in range(5)]
    low, high = label_ranges(np.array([10**9, 1, 1, 1]), 2)
    assert (low, high) == ((0, 1), (1, 4))


def test_labels_without_documents_are_shared_out_by_number() -> None:
    assert label_ranges(np.zeros(9, np.int64), 3) == [(0, 3), (3, 6), (6, 9)]


def test_more_ranges_than_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="2 labels cannot be cut into 3"):
        label_ranges(np.array([1, 2]), 3)


@pytest.mark.parametrize("b", [(low, high) for low in range(9) for high in range(low, 9)])
def test_overlap_is_the_common_items(b: Range) -> None:
    common = sorted(set(range(2, 6)) & set(range(*b)))
    expected = (common[0], common[-1] + 1) if common else None
    assert overlap((2, 6), b) == expected
    assert overlap(b, (2, 6)) == expected


def test_epoch_orders_are_permutations_that_depend_on_seed_and_epoch() -> None:
    orders = [epoch_order(50, seed=s, epoch=e) for s, e in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], epoch_order(50, seed=0, epoch=0))


def test_validation_rows() -> None:
    rows = validation_rows(200, 0.1, seed=4)
    assert len(rows) == 20
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < 200
    assert rows.tolist() != validation_rows(200, 0.1, seed=5).tolist()
    assert len(validation_rows(200, 0.0, seed=4)) == 0
