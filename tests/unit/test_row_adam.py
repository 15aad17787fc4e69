"""RowAdam against torch's Adam and SparseAdam, and against a plain loop over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ray_xml.row_adam import RowAdam

ROWS, DIM = 12, 5


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(ROWS, DIM), (ROWS,)])
def test_all_rows_are_torch_adam(shape: tuple[int, ...]) -> None:
    ours, theirs = random(0, *shape), random(0, *shape).requires_grad_()
    own = RowAdam(ours)
    optimizer = torch.optim.Adam([theirs])
    for step, rate in enumerate([0.1, 0.1, 0.01, 0.3]):
        gradient = random(step + 1, *shape)
        own.step(None, gradient, rate)
        theirs.grad = gradient
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-7)
    assert own.steps.item() == 4


def test_some_rows_are_torch_sparse_adam() -> None:
    ours, theirs = random(0, ROWS, DIM), random(0, ROWS, DIM).requires_grad_()
    own = RowAdam(ours)
    optimizer = torch.optim.SparseAdam([theirs], lr=0.05)
    rng = np.random.default_rng(0)
    for step in range(20):
        rows = torch.from_numpy(rng.permutation(ROWS)[: rng.integers(1, 6)])
        gradient = random(step + 1, len(rows), DIM)
        own.step(rows, gradient, 0.05)
        theirs.grad = torch.sparse_coo_tensor(
            rows[None], gradient, (ROWS, DIM), check_invariants=True
        )
        optimizer.step()
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_some_rows_are_a_plain_loop() -> None:
    ours = random(0, ROWS, DIM)
    own = RowAdam(ours)
    table = ours.double().tolist()
    first = [[0.0] * DIM for _ in range(ROWS)]
    second = [[0.0] * DIM for _ in range(ROWS)]
    rng = np.random.default_rng(1)
    for step in range(1, 16):
        rows = np.sort(rng.permutation(ROWS)[:4])
        gradient = random(step, 4, DIM)
        own.step(torch.from_numpy(rows), gradient, 0.02)
        for place, row in enumerate(rows):
            for d, g in enumerate(gradient[place].tolist()):
                first[row][d] = 0.9 * first[row][d] + 0.1 * g
                second[row][d] = 0.999 * second[row][d] + 0.001 * g * g
                mean = first[row][d] / (1 - 0.9**step)
                spread = second[row][d] / (1 - 0.999**step)
                table[row][d] -= 0.02 * mean / (math.sqrt(spread) + 1e-8)
    np.testing.assert_allclose(ours.numpy(), np.array(table), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [511, 512, 513, 1100])
@pytest.mark.parametrize("dim", [(), (3,)])
def test_many_rows_are_the_same_rows_a_few_at_a_time(count: int, dim: tuple[int, ...]) -> None:
    """Adam treats rows one by one, so that chunks of them must not show."""
    rows = torch.from_numpy(np.random.default_rng(0).permutation(1300)[:count])
    whole, pieces = RowAdam(random(0, 1300, *dim)), RowAdam(random(0, 1300, *dim))
    for step in range(3):
        gradient = random(step + 1, count, *dim)
        whole.step(rows, gradient, 0.1)
        before = pieces.steps.clone()
        for part, of_part in zip(rows.split(100), gradient.split(100), strict=True):
            pieces.steps.copy_(before)
            pieces.step(part, of_part, 0.1)
        assert whole.steps == pieces.steps == step + 1
    for name in ("table", "first", "second"):
        torch.testing.assert_close(
            getattr(whole, name), getattr(pieces, name), rtol=1e-6, atol=1e-7
        )


def test_other_rows_stay_as_they_are_to_the_bit() -> None:
    table = random(0, ROWS, DIM)
    own = RowAdam(table)
    own.step(None, random(1, ROWS, DIM), 0.1)
    before = [part.clone() for part in (table, own.first, own.second)]
    own.step(torch.tensor([7, 2]), random(2, 2, DIM), 0.1)
    others = [row for row in range(ROWS) if row not in (2, 7)]
    for was, part in zip(before, (table, own.first, own.second), strict=True):
        assert torch.equal(was[others], part[others])
        assert not torch.equal(was[[2, 7]], part[[2, 7]])


def test_a_step_without_rows_changes_nothing() -> None:
    table = random(0, ROWS, DIM)
    own = RowAdam(table)
    own.step(torch.zeros(0, dtype=torch.int64), torch.zeros(0, DIM), 0.1)
    assert torch.equal(table, random(0, ROWS, DIM))


def test_the_order_of_rows_is_free() -> None:
    tables = [random(0, ROWS, DIM), random(0, ROWS, DIM)]
    rows, gradient = torch.tensor([9, 1, 4]), random(5, 3, DIM)
    turned = torch.tensor([2, 0, 1])
    RowAdam(tables[0]).step(rows, gradient, 0.1)
    RowAdam(tables[1]).step(rows[turned], gradient[turned], 0.1)
    assert torch.equal(*tables)
