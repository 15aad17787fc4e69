"""The exchange on real gloo groups of 1, 2 and 3 processes against plain slices and sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from groups import Groups

from ray_xml.exchange import Exchange
from ray_xml.partition import even

BATCH, DIM = 12, 7  # 12 documents divide by 1, 2 and 3; 7 columns by none but 1


def part_of(rank: int, *shape: int) -> torch.Tensor:
    """What rank ``rank`` holds: numbers that sum without rounding."""
    numbers = np.random.default_rng(rank).integers(-100, 100, shape)
    return torch.from_numpy(numbers.astype(np.float32))


def whole_batch() -> torch.Tensor:
    return part_of(99, BATCH, DIM)


def every_method() -> dict[str, np.ndarray]:
    """What each method gives on this rank; runs in a group."""
    exchange = Exchange()
    rank, size = exchange.rank, exchange.size
    rows = BATCH // size
    low, high = even(DIM, size)[rank]
    whole = whole_batch()
    own_rows, own_columns = whole[rank * rows : (rank + 1) * rows], whole[:, low:high]
    summed, later = part_of(rank, 3, 2), part_of(rank, 3, 2)
    exchange.barrier()
    wait = exchange.begin_sum(later)
    gathered = exchange.gather_rows(own_rows)  # others may go on meanwhile
    wait()
    return {
        "begin_sum": later.numpy(),
        "rank, size": np.array([rank, size]),
        "sum_ result": exchange.sum_(summed).numpy(),
        "sum_ in place": summed.numpy(),
        "gather_rows": gathered.numpy(),
        "gather_rows of a view": exchange.gather_rows(part_of(rank, 2, rows).t()).numpy(),
        "scatter_sum_rows": exchange.scatter_sum_rows(part_of(rank, BATCH, DIM)).numpy(),
        "columns_to_rows": exchange.columns_to_rows(own_columns, DIM).numpy(),
        "rows_to_columns": exchange.rows_to_columns(own_rows).numpy(),
        "there and back": exchange.rows_to_columns(
            exchange.columns_to_rows(own_columns, DIM)
        ).numpy(),
        "float64": exchange.sum_(part_of(rank, 2, 2).double()).numpy(),
    }


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_method_is_the_obvious_one(groups: Groups, size: int) -> None:
    whole, rows = whole_batch().numpy(), BATCH // size
    summed = sum(part_of(rank, 3, 2).numpy() for rank in range(size))
    batches = sum(part_of(rank, BATCH, DIM).numpy() for rank in range(size))
    turned = np.concatenate([part_of(rank, 2, rows).numpy().T for rank in range(size)])
    doubles = sum(part_of(rank, 2, 2).double().numpy() for rank in range(size))
    answers = groups.run(size, every_method)
    for rank, answer in enumerate(answers):
        own_rows = slice(rank * rows, (rank + 1) * rows)
        own_columns = slice(*even(DIM, size)[rank])
        expected = {
            "rank, size": np.array([rank, size]),
            "begin_sum": summed,
            "sum_ result": summed,
            "sum_ in place": summed,
            "gather_rows": whole,
            "gather_rows of a view": turned,
            "scatter_sum_rows": batches[own_rows],
            "columns_to_rows": whole[own_rows],
            "rows_to_columns": whole[:, own_columns],
            "there and back": whole[:, own_columns],
            "float64": doubles,
        }
        assert answer.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(answer[name], value, err_msg=f"{name} on rank {rank}")


def bytes_sent() -> list[int]:
    exchange = Exchange()
    low, high = even(DIM, exchange.size)[exchange.rank]
    rows = BATCH // exchange.size
    sent = []
    for call in (
        lambda: exchange.sum_(torch.zeros(60)),
        lambda: exchange.gather_rows(torch.zeros(rows, DIM)),
        lambda: exchange.scatter_sum_rows(torch.zeros(BATCH, DIM)),
        lambda: exchange.columns_to_rows(torch.zeros(BATCH, high - low), DIM),
        lambda: exchange.rows_to_columns(torch.zeros(rows, DIM)),
    ):
        before = exchange.bytes_sent
        call()
        sent.append(exchange.bytes_sent - before)
    return sent


def test_bytes_sent_are_those_that_leave_a_rank(groups: Groups) -> None:
    # Of 12 × 7 floats each of 3 ranks keeps what is its own; columns are cut 2, 2, 3.
    for (low, high), sent in zip(even(DIM, 3), groups.run(3, bytes_sent), strict=True):
        width = high - low
        others = BATCH // 3 * DIM * 2
        assert sent == [4 * 80, 4 * others, 4 * others, 4 * 8 * width, 4 * 4 * (DIM - width)]


def test_one_worker_needs_no_group() -> None:
    exchange = Exchange()
    x = whole_batch()
    exchange.barrier()
    assert (exchange.rank, exchange.size, exchange.active) == (0, 1, False)
    for same in (
        exchange.sum_(x),
        exchange.gather_rows(x),
        exchange.scatter_sum_rows(x),
        exchange.columns_to_rows(x, DIM),
        exchange.rows_to_columns(x),
    ):
        assert same is x
    assert exchange.bytes_sent == 0
