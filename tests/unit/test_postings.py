"""Sparse products of many documents and of one, and work spread over threads."""

from __future__ import annotations

import threading
from threading import Barrier

import numpy as np
import pytest
import torch
from made import dense, random_csr

from ray_xml.postings import Postings, spread


def test_products_against_dense_ones() -> None:
    rng = np.random.default_rng(0)
    queries, rows = random_csr(rng, 12, 25), random_csr(rng, 25, 40)
    assert (queries.counts == 0).any()
    table = Postings(rows)
    expected = dense(queries).astype(np.float64) @ dense(rows)
    np.testing.assert_allclose(table.products(queries).toarray(), expected, rtol=1e-4, atol=1e-6)
    for row in range(12):
        columns, values = table.product(queries.slice(row, row + 1))
        assert values.dtype == np.float32
        found = np.zeros(40)
        found[columns] = values
        np.testing.assert_allclose(found, expected[row], rtol=1e-4, atol=1e-6)


def test_a_table_without_entries() -> None:
    rng = np.random.default_rng(0)
    queries, rows = random_csr(rng, 4, 25), random_csr(rng, 25, 7, 0.0)
    table = Postings(rows)
    assert table.products(queries).nnz == 0
    assert [len(part) for part in table.product(queries.slice(0, 1))] == [0, 0]


@pytest.mark.parametrize(("rows", "entries"), [(3, 10**9), (100, 30), (2, 30), (5, 0)])
def test_blocks_of_bounded_products(rows: int, entries: int) -> None:
    rng = np.random.default_rng(0)
    queries, table = random_csr(rng, 14, 25).slice(2, 14), Postings(random_csr(rng, 25, 40))
    blocks = list(table.blocks(queries, rows, entries))
    together = np.concatenate([dense(block) for block in blocks])
    assert np.array_equal(together, dense(queries))
    for block in blocks:
        within = sum(table.rows.counts[feature] for feature in block.packed().ids)
        assert block.num_rows == 1 or (block.num_rows <= rows and within <= entries)
    if rows == 100:
        assert 1 < len(blocks) < 12
    assert list(table.blocks(queries.slice(0, 0), rows, entries)) == []


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_the_order_of_the_items(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    together = Barrier(threads, timeout=30)  # passes only if as many work at once

    def work(item: int) -> tuple[int, str]:
        together.wait()
        return item * item, threading.current_thread().name

    found = spread(work, list(range(8)))
    assert [square for square, _ in found] == [item * item for item in range(8)]
    assert ({name for _, name in found} == {"MainThread"}) == (threads == 1)
    assert spread(work, []) == []


def test_an_error_in_a_thread_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        spread(lambda item: 1 // item, [2, 1, 0])
