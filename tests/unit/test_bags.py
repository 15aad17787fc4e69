"""Bags against dense matrix products, forwards and transposed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made import dense, random_csr

from ray_xml.bags import Bags, bags_of, sum_bags, transposed_bags
from ray_xml.sparse import Csr

CASES = [(40, 30, 0.2, False), (40, 30, 0.2, True), (7, 3, 0.9, False), (5, 50, 0.02, False)]


def cases() -> list[Csr]:
    """Matrices with and without values, and a slice whose offsets do not begin at 0."""
    rng = np.random.default_rng(3)
    made = [random_csr(rng, rows, columns, d, binary=b) for rows, columns, d, b in CASES]
    return [*made, made[0].slice(11, 29)]


@pytest.mark.parametrize("rows", cases())
def test_sums_are_a_dense_product(rows: Csr) -> None:
    table = torch.randn(rows.num_columns, 6, generator=torch.Generator().manual_seed(1))
    expected = dense(rows) @ table.numpy()
    np.testing.assert_allclose(sum_bags(table, bags_of(rows)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("rows", cases())
def test_transposed_sums_are_a_dense_product(rows: Csr) -> None:
    whole = dense(rows)
    columns, bags = transposed_bags(rows)
    used = np.flatnonzero((whole != 0).any(0))
    assert columns.tolist() == used.tolist()
    table = torch.randn(rows.num_rows, 6, generator=torch.Generator().manual_seed(2))
    expected = (whole.T @ table.numpy())[used]
    np.testing.assert_allclose(sum_bags(table, bags).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("rows", cases())
def test_transposed_bags_list_rows_in_order(rows: Csr) -> None:
    columns, bags = transposed_bags(rows)
    rows = rows.packed()
    entries = sorted(zip(rows.ids.tolist(), rows.row_of_entry().tolist(), strict=True))
    assert bags.ids.tolist() == [row for _, row in entries]
    of_column = [column for column, _ in entries]
    assert bags.offsets.tolist() == [of_column.index(column) for column in columns]


def test_a_few_entries_of_a_very_wide_matrix() -> None:
    rows = random_csr(np.random.default_rng(5), 9, 11, 0.4)
    spread = np.array([7, 8, 90, 4000, 2**20, 2**21, 2**22, 2**24, 2**30, 2**31 - 3, 2**31 - 2])
    wide = Csr(rows.offsets, spread[rows.ids].astype(np.int32), rows.values, 2**31 - 1)
    (columns, bags), (wide_columns, wide_bags) = transposed_bags(rows), transposed_bags(wide)
    assert wide_columns.tolist() == spread[columns].tolist()
    for one, other in zip(bags, wide_bags, strict=True):
        assert torch.equal(one, other)


def test_empty_bags_sum_to_zero() -> None:
    rows = Csr.from_lists([[], [1], [], []], 3, [[], [2.0], [], []])
    summed = sum_bags(torch.ones(3, 2), bags_of(rows))
    assert summed.tolist() == [[0, 0], [2, 2], [0, 0], [0, 0]]


def test_nothing_but_empty_bags_and_no_bags_at_all() -> None:
    table = torch.ones(3, 2)
    empty = Csr.from_lists([[], []], 3, [[], []])
    assert sum_bags(table, bags_of(empty)).tolist() == [[0, 0], [0, 0]]
    columns, bags = transposed_bags(empty)
    assert len(columns) == 0
    assert sum_bags(table, bags).shape == (0, 2)
    assert sum_bags(table, bags_of(empty.slice(0, 0))).shape == (0, 2)


def test_bags_do_not_share_memory_with_a_read_only_matrix() -> None:
    rows = random_csr(np.random.default_rng(0), 6, 5)
    for array in (rows.offsets, rows.ids, rows.values):
        assert array is not None
        array.flags.writeable = False
    bags = bags_of(rows)  # a read-only array would make torch warn, and warnings are errors here
    assert isinstance(bags, Bags)
    before = rows.values.copy()
    bags.weights.mul_(2)
    np.testing.assert_array_equal(rows.values, before)
