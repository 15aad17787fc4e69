"""Sparse products, and work spread over threads."""

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
    queries, rows = random_csr(rng, 14, 25).slice(2, 14), random_csr(rng, 25, 40)
    assert (queries.counts == 0).any()
    assert (rows.counts == 0).any()
    table = Postings(rows)
    expected = dense(queries).astype(np.float64) @ dense(rows)
    together = table.products(queries).toarray()
    for row, query in queries.blocks(1):
        found = table.product(query)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[row], rtol=1e-4, atol=1e-6)
        assert np.array_equal(together[row], found)
        assert table.work(queries)[row] == rows.take(query.packed().ids).nnz


def test_a_table_without_entries() -> None:
    rng = np.random.default_rng(0)
    queries, rows = random_csr(rng, 4, 25), random_csr(rng, 25, 7, 0.0)
    for _, query in queries.blocks(1):
        assert Postings(rows).product(query).tolist() == [0] * 7


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
