"""LeanAdam against RowAdam and plain loops; bfloat16 rows move right on average, however cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ray_xml import lean_adam
from ray_xml.lean_adam import LeanAdam, Second
from ray_xml.row_adam import RowAdam

ROWS, DIM = 12, 5
KINDS: list[Second] = ["element", "row", "none"]
TYPES = [torch.float32, torch.bfloat16]


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn_rows(step: int, count: int | None = None) -> Tensor:
    rng = np.random.default_rng(step)
    return torch.from_numpy(rng.permutation(ROWS)[: count or rng.integers(1, 7)])


def parts_of(adam: LeanAdam) -> list[Tensor]:
    return [adam.table, *adam.state().values()]


def test_element_is_row_adam_and_torch_sparse_adam() -> None:
    ours, theirs = random(0, ROWS, DIM), random(0, ROWS, DIM)
    torchs = random(0, ROWS, DIM).requires_grad_()
    lean, full = LeanAdam(ours, "element"), RowAdam(theirs)
    sparse = torch.optim.SparseAdam([torchs], lr=0.05)
    for step in range(20):
        rows = drawn_rows(step)
        gradient = random(step + 1, len(rows), DIM)
        lean.step(rows, gradient, 0.05)
        full.step(rows, gradient, 0.05)
        torchs.grad = torch.sparse_coo_tensor(
            rows[None], gradient, (ROWS, DIM), check_invariants=True
        )
        sparse.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours, torchs.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(lean.first, full.first, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(lean.second, full.second, rtol=1e-5, atol=1e-9)
    assert lean.steps == full.steps == 20


@pytest.mark.parametrize("all_rows", [False, True])
def test_row_is_a_plain_loop(all_rows: bool) -> None:
    ours = random(0, ROWS, DIM)
    own = LeanAdam(ours, "row")
    table = ours.double().tolist()
    first = [[0.0] * DIM for _ in range(ROWS)]
    second = [0.0] * ROWS
    for step in range(1, 16):
        rows = torch.arange(ROWS) if all_rows else drawn_rows(step)
        gradient = random(step, len(rows), DIM)
        own.step(None if all_rows else rows, gradient, 0.02)
        for place, row in enumerate(rows.tolist()):
            numbers = gradient[place].tolist()
            mean_square = sum(g * g for g in numbers) / DIM
            second[row] = 0.999 * second[row] + 0.001 * mean_square
            spread = math.sqrt(second[row] / (1 - 0.999**step)) + 1e-8
            for d, g in enumerate(numbers):
                first[row][d] = 0.9 * first[row][d] + 0.1 * g
                table[row][d] -= 0.02 * first[row][d] / (1 - 0.9**step) / spread
    np.testing.assert_allclose(ours.numpy(), np.array(table), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own.second.numpy(), np.array(second), rtol=1e-4)


def test_none_is_gradient_descent() -> None:
    ours, slow = random(0, ROWS, DIM), random(0, ROWS, DIM).double()
    own = LeanAdam(ours, "none")
    for step in range(10):
        rows = drawn_rows(step)
        gradient = random(step + 1, len(rows), DIM)
        own.step(rows, gradient, 0.3)
        slow[rows] -= 0.3 * gradient.double()
        torch.testing.assert_close(ours.double(), slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_nearly_float32(kind: Second) -> None:
    full = LeanAdam(random(0, ROWS, DIM), kind)
    low = LeanAdam(random(0, ROWS, DIM).bfloat16(), kind, seed=3)
    for step in range(8):
        rows = drawn_rows(step)
        gradient = random(step + 1, len(rows), DIM)
        for one in (full, low):
            one.step(rows, gradient, 0.1)
    for name, moments in full.state().items():
        found = low.state()[name].float()
        torch.testing.assert_close(found, moments, rtol=0.05, atol=0.02, msg=name)
    # 2^-8 of a weight of at most 4 may be lost or won at each of at most 8 steps.
    torch.testing.assert_close(low.table.float(), full.table, rtol=0.03, atol=0.03)
    assert (full.table - random(0, ROWS, DIM)).abs().max() > 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_the_moments_that_are_kept(kind: Second, dtype: torch.dtype) -> None:
    adam = LeanAdam(torch.zeros(ROWS, DIM, dtype=dtype), kind)
    expected = {
        "element": {"first": (dtype, (ROWS, DIM)), "second": (dtype, (ROWS, DIM))},
        "row": {"first": (dtype, (ROWS, DIM)), "second": (torch.float32, (ROWS,))},
        "none": {},
    }
    found = {name: (one.dtype, tuple(one.shape)) for name, one in adam.state().items()}
    assert found == expected[kind]
    # They are the very tensors, so that a checkpoint can fill them.
    for name, tensor in adam.state().items():
        assert tensor is getattr(adam, name)


def test_updates_too_small_for_bfloat16_are_made_on_average() -> None:
    """Each is a 20th of the last place: rounding to the nearest would stay where it was."""
    rows, dim, steps = 4096, 16, 40
    place = 2**-8  # bfloat16 numbers in [1/2, 1) lie 2^-8 apart
    update = place / 20
    start = torch.full((rows, dim), 0.75, dtype=torch.bfloat16)
    assert torch.equal((start.float() - update).bfloat16(), start)
    adam = LeanAdam(start.clone(), "none")
    gradient = torch.ones(rows, dim)
    for _ in range(steps):
        adam.step(None, gradient, update)
    moved = start.double() - adam.table.double()
    # The spread of one weight's walk is below √(steps · place² / 20); of the mean a 256th of it.
    bound = 4 * place * math.sqrt(steps / 20) / math.sqrt(rows * dim)
    assert abs(moved.mean().item() - steps * update) < bound
    # In every column and, over 16 rows' mean, in every part of the table.
    assert (moved.mean(0) - steps * update).abs().max() < bound * math.sqrt(dim) * 1.2
    blocks = moved.reshape(-1, 16 * dim).mean(1)
    assert (blocks - steps * update).abs().max() < 0.5 * steps * update
    # Weights are nowhere but on either side of where they should be.
    assert set((moved / place).unique().tolist()) <= set(range(12))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_one_rounding_is_up_as_often_as_it_should_be(sign: float) -> None:
    """Over the rows of the patterns, which are evenly spread, the share is exact to a step."""
    rows = 8192
    place = 2**-8
    for share in (0.0, 0.125, 0.5, 0.9):
        adam = LeanAdam(torch.full((rows, 3), 0.5 * sign, dtype=torch.bfloat16), "none", seed=1)
        adam.step(None, torch.full((rows, 3), -sign), share * place)
        moved = (adam.table.double() - 0.5 * sign) * sign
        assert set(moved.unique().tolist()) <= {0.0, place}
        assert (moved > 0).double().mean().item() == pytest.approx(share, abs=0.015)
        if share == 0.0:
            assert (moved == 0).all()


@pytest.mark.parametrize("kind", ["element", "row"])
def test_small_steps_of_adam_are_made_on_average(kind: Second) -> None:
    rows, dim, steps = 2048, 8, 30
    low = LeanAdam(torch.full((rows, dim), 0.75, dtype=torch.bfloat16), kind)
    full = LeanAdam(torch.full((rows, dim), 0.75), kind)
    rate = 2**-8 / 16  # Adam's first steps are of about this size
    for step in range(steps):
        gradient = (1.0 + 0.5 * random(step, rows, dim)).clamp_min(0.1)
        for one in (low, full):
            one.step(None, gradient, rate)
    moved, expected = (0.75 - one.table.double().mean() for one in (low, full))
    assert expected.item() > 25 * rate
    # First moments are rounded to the nearest, which is half a percent at worst.
    assert moved.item() == pytest.approx(expected.item(), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_other_rows_stay_as_they_are_to_the_bit(kind: Second, dtype: torch.dtype) -> None:
    adam = LeanAdam(random(0, ROWS, DIM).to(dtype), kind)
    adam.step(None, random(1, ROWS, DIM), 0.1)
    before = [part.clone() for part in parts_of(adam)]
    adam.step(torch.tensor([7, 2]), random(2, 2, DIM), 0.1)
    others = [row for row in range(ROWS) if row not in (2, 7)]
    for was, part in zip(before, parts_of(adam), strict=True):
        assert torch.equal(was[others], part[others])
        assert not torch.equal(was[[2, 7]], part[[2, 7]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_step_without_rows_changes_nothing(kind: Second, dtype: torch.dtype) -> None:
    adam = LeanAdam(random(0, ROWS, DIM).to(dtype), kind)
    adam.step(torch.zeros(0, dtype=torch.int64), torch.zeros(0, DIM), 0.1)
    assert torch.equal(adam.table, random(0, ROWS, DIM).to(dtype))


MANY, WIDE = 1300, 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_cuts_chunks_and_order_leave_no_trace(
    kind: Second, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are treated one by one: a table in three parts, in small chunks, in another order."""
    cuts = [(0, 1), (1, 700), (700, MANY)]
    start = random(0, MANY, WIDE).to(dtype)
    whole = LeanAdam(start.clone(), kind, seed=5)
    parts = [LeanAdam(start[low:high].clone(), kind, first_row=low, seed=5) for low, high in cuts]
    turned, chunked = (LeanAdam(start.clone(), kind, seed=5) for _ in range(2))
    for step in range(4):
        rng = np.random.default_rng(step)
        rows = torch.from_numpy(rng.permutation(MANY)[:1100])
        gradient = random(step + 1, len(rows), WIDE)
        whole.step(rows, gradient, 0.1)
        order = torch.from_numpy(rng.permutation(len(rows)))
        turned.step(rows[order], gradient[order], 0.1)
        with monkeypatch.context() as patch:
            patch.setattr(lean_adam, "_CHUNK", 7)
            chunked.step(rows, gradient, 0.1)
        for (low, high), part in zip(cuts, parts, strict=True):
            own = (rows >= low) & (rows < high)
            part.step(rows[own] - low, gradient[own], 0.1)
        together = [torch.cat(one) for one in zip(*map(parts_of, parts), strict=True)]
        for found in (together, parts_of(turned), parts_of(chunked)):
            for one, other in zip(found, parts_of(whole), strict=True):
                assert torch.equal(one, other)


def test_none_means_all_rows_in_order() -> None:
    for dtype in TYPES:
        one, other = (LeanAdam(random(0, ROWS, DIM).to(dtype), "row") for _ in range(2))
        for step in range(3):
            gradient = random(step, ROWS, DIM)
            one.step(None, gradient, 0.1)
            other.step(torch.arange(ROWS), gradient, 0.1)
        assert torch.equal(one.table, other.table)


def test_rounding_follows_the_seed_and_changes_from_step_to_step() -> None:
    def ups(seed: int, steps: int) -> list[Tensor]:
        """Which weights went up at each step; each is set back after it."""
        adam = LeanAdam(torch.full((64, DIM), 0.5, dtype=torch.bfloat16), "none", seed=seed)
        seen = []
        for _ in range(steps):
            adam.step(None, torch.full((64, DIM), -1.0), 2**-9)
            seen.append(adam.table > 0.5)
            adam.table.fill_(0.5)
        return seen

    for one, again in zip(ups(1, 3), ups(1, 3), strict=True):
        assert torch.equal(one, again)
    first, second, third = ups(1, 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert not torch.equal(first, ups(2, 1)[0])
