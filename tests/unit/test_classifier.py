"""The classifier's loss, gradients and updates against torch's BCEWithLogits on autograd."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made import dense, random_csr
from torch import Tensor

from ray_xml.classifier import Candidates, Classifier, ClassifierConfig, product_type
from ray_xml.partition import Range
from ray_xml.sparse import Csr

LABELS, DIM, BATCH, SIZE = 17, 5, 8, 4
CPU = torch.device("cpu")
COUNTS = np.arange(LABELS) * 3
MODES = ["union", "shortlist"]


def shortlist(step: int) -> np.ndarray:
    """int32 [B, k]: some distinct labels of each document, and −1 for none."""
    rng = np.random.default_rng(step)
    lists = np.stack([rng.permutation(LABELS - 4)[:SIZE] for _ in range(BATCH)])
    lists[rng.random(lists.shape) < 0.2] = -1
    return lists.astype(np.int32)


def labels(step: int) -> Csr:
    return random_csr(np.random.default_rng(50 + step), BATCH, LABELS, 0.12, binary=True)


def embeddings(step: int) -> Tensor:
    return torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(step))


def config_of(**keys: Any) -> ClassifierConfig:
    return ClassifierConfig(
        **{"precision": "float32", "storage": "float32", "optimizer": "adam", **keys}
    )


def make(label_range: Range = (0, LABELS), **keys: Any) -> Classifier:
    low, high = label_range
    made = Classifier(label_range, DIM, COUNTS[low:high], 100, CPU, config_of(**keys))
    rows = torch.randn(LABELS, DIM, generator=torch.Generator().manual_seed(9))
    made.weight.copy_(rows[low:high])
    return made


def candidates(step: int, label_range: Range, negatives: str) -> Candidates:
    return Candidates.build(
        shortlist(step), labels(step), label_range, CPU, negatives=negatives, documents=BATCH
    )


def mask_of(step: int, negatives: str) -> np.ndarray:
    """bool [B, L]: the (document, label) entries that count."""
    positive = dense(labels(step)) > 0
    listed = np.zeros_like(positive)
    for row, names in enumerate(shortlist(step)):
        listed[row, names[names >= 0]] = True
    own = listed | positive
    return np.tile(own.any(0), (BATCH, 1)) if negatives == "union" else own


@pytest.mark.parametrize("negatives", MODES)
def test_steps_are_those_of_autograd(negatives: str) -> None:
    ours = make()
    weight, bias = ours.weight.clone().requires_grad_(), ours.bias.clone().requires_grad_()
    optimizer = torch.optim.SparseAdam([weight, bias], lr=0.03)
    for step in range(4):
        z = embeddings(step).requires_grad_()
        mask = mask_of(step, negatives)
        loss = (
            F.binary_cross_entropy_with_logits(
                z @ weight.t() + bias, torch.from_numpy(dense(labels(step))), reduction="none"
            )[torch.from_numpy(mask)].sum()
            / BATCH
        )
        optimizer.zero_grad()
        loss.backward()
        rows = torch.from_numpy(np.flatnonzero(mask.any(0)))
        for part in (weight, bias):
            part.grad = torch.sparse_coo_tensor(
                rows[None], part.grad[rows], part.shape, check_invariants=True
            )
        optimizer.step()
        found = ours.step(embeddings(step), candidates(step, (0, LABELS), negatives), BATCH, 0.03)
        torch.testing.assert_close(found[0], loss.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], z.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.weight, weight.detach(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(ours.bias, bias.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("negatives", MODES)
def test_pairs_left_out_get_no_gradient(negatives: str) -> None:
    """As with a mask that has zeros there."""
    ours, slow = make(), make()
    z, rng = embeddings(0), np.random.default_rng(5)
    pairs = Csr.from_lists(
        [np.flatnonzero(row).tolist() for row in rng.random((BATCH, LABELS)) < 0.5], LABELS
    )
    given = Candidates.build(
        shortlist(0), labels(0), (0, LABELS), CPU,
        negatives=negatives, documents=BATCH, left_out=pairs,
    )  # fmt: skip
    ids = np.arange(LABELS) if given.rows is None else given.rows.numpy()
    counts = ~((dense(pairs) > 0) & (dense(labels(0)) == 0))[:, ids]
    mask = torch.from_numpy((counts & mask_of(0, negatives)[:, ids]).astype(np.float32))
    found = ours.step(z, given, BATCH, 0.03)
    expected = slow.step(z, replace(given, left_out=None, mask=mask), BATCH, 0.03)
    assert not counts.all()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.weight, slow.weight)


@pytest.mark.parametrize("negatives", MODES)
def test_candidates_are_the_labels_that_somebody_has_or_lists(negatives: str) -> None:
    for step in range(5):
        mask = mask_of(step, negatives)
        for low, high in [(0, LABELS), (0, 6), (6, 13), (13, LABELS)]:
            made = candidates(step, (low, high), negatives)
            own = np.flatnonzero(mask[:, low:high].any(0))
            rows = own.tolist() if made.rows is None else made.rows.tolist()
            assert rows == own.tolist()
            assert (made.rows is None) == (len(own) == high - low)
            count = len(own)
            positive = np.zeros((BATCH, count))
            positive.reshape(-1)[made.positives.numpy()] = 1
            np.testing.assert_array_equal(positive, dense(labels(step))[:, low + own])
            assert len(made.positives) == positive.sum()
            if negatives == "shortlist":
                np.testing.assert_array_equal(made.mask.numpy(), mask[:, low + own])
            else:
                assert made.mask is None


@pytest.mark.parametrize("negatives", MODES)
def test_ranges_together_are_the_whole(negatives: str) -> None:
    whole = make()
    cuts = [(0, 3), (3, 13), (13, 14), (14, LABELS)]
    parts = [make(cut) for cut in cuts]
    for step in range(3):
        z = embeddings(step)
        loss, gradient = whole.step(z, candidates(step, (0, LABELS), negatives), BATCH, 0.03)
        found = [
            part.step(z, candidates(step, cut, negatives), BATCH, 0.03)
            for part, cut in zip(parts, cuts, strict=True)
        ]
        torch.testing.assert_close(sum(one for one, _ in found), loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(sum(one for _, one in found), gradient, rtol=1e-4, atol=1e-6)
    weight, bias = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
    torch.testing.assert_close(weight, whole.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, whole.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negatives", MODES)
def test_padding_rows_have_no_effect(negatives: str) -> None:
    plain, padded = make(), make()
    z, lists, rows = embeddings(0)[:5], shortlist(0)[:5], labels(0).slice(0, 5)
    few = Candidates.build(lists, rows, (0, LABELS), CPU, negatives=negatives, documents=5)
    many = Candidates.build(
        np.pad(lists, ((0, 3), (0, 0)), constant_values=-1),
        rows.padded(8),
        (0, LABELS),
        CPU,
        negatives=negatives,
        documents=5,
    )
    behind = torch.full((3, DIM), 7.0)  # whatever an empty document's embedding may be
    loss, gradient = plain.step(z, few, 5, 0.1)
    found = padded.step(torch.cat([z, behind]), many, 5, 0.1)
    torch.testing.assert_close(found[0], loss, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found[1][:5], gradient, rtol=1e-5, atol=1e-7)
    assert torch.equal(found[1][5:], torch.zeros(3, DIM))
    torch.testing.assert_close(padded.weight, plain.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(padded.bias, plain.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("negatives", MODES)
def test_a_range_without_candidates_takes_no_part(negatives: str) -> None:
    made = make((3, 6))
    none = Candidates.build(
        np.full((BATCH, SIZE), -1, np.int32),
        Csr.from_lists([[0]] * BATCH, LABELS),
        (3, 6),
        CPU,
        negatives=negatives,
        documents=BATCH,
    )
    loss, gradient = made.step(embeddings(0), none, BATCH, 0.1)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros(BATCH, DIM))
    assert torch.equal(made.weight, make((3, 6)).weight)


def test_logits_start_at_the_labels_log_odds() -> None:
    made = Classifier((2, 6), DIM, COUNTS[2:6], 100, CPU, config_of())
    share = torch.sigmoid(made.bias)
    np.testing.assert_allclose(share.numpy(), (COUNTS[2:6] + 0.5) / 101, rtol=1e-5)
    assert torch.equal(made.weight, torch.zeros(4, DIM))
    # Never and always.
    edge = Classifier((0, 2), DIM, np.array([0, 100]), 100, CPU, config_of())
    assert edge.bias.isfinite().all()


@pytest.mark.parametrize("negatives", MODES)
def test_bfloat16_products_are_nearly_those_of_float32(negatives: str) -> None:
    full, low = make(), make()
    low.product_type = torch.bfloat16
    given = candidates(0, (0, LABELS), negatives)
    loss, gradient = full.step(embeddings(0), given, BATCH, 0.01)
    found = low.step(embeddings(0), given, BATCH, 0.01)
    assert found[1].dtype == low.weight.dtype == low.weight_adam.first.dtype == torch.float32
    assert found[0].item() == pytest.approx(loss.item(), rel=1e-2)
    torch.testing.assert_close(found[1], gradient, rtol=2e-2, atol=2e-3)
    torch.testing.assert_close(low.weight_adam.first, full.weight_adam.first, rtol=2e-2, atol=1e-3)


def test_the_type_of_products() -> None:
    assert product_type("float32", CPU) == torch.float32
    assert product_type("bfloat16", CPU) == torch.bfloat16
    assert product_type("auto", CPU) in (torch.float32, torch.bfloat16)


def test_drawn_labels_join_the_candidates_of_their_range() -> None:
    lists = np.array([[0, 3], [5, -1]], np.int32)
    rows = Csr.from_lists([[1], [5]], LABELS)
    drawn = np.array([2, 2, 9, 0], np.int32)

    def rows_of(label_range: tuple[int, int]) -> list[int]:
        made = Candidates.build(
            lists, rows, label_range, CPU, negatives="union", documents=2, drawn=drawn
        )
        assert made.rows is not None
        return (made.rows + label_range[0]).tolist()

    assert rows_of((0, LABELS)) == [0, 1, 2, 3, 5, 9]
    assert rows_of((0, 6)) == [0, 1, 2, 3, 5]
    assert rows_of((6, LABELS)) == [9]


OPTIMIZERS = ["adam", "adam_row", "sgd"]


class Slow:
    """Float64 rows and the update of each optimizer, written out for all rows at once."""

    def __init__(self, optimizer: str, weight: Tensor, bias: Tensor) -> None:
        self.optimizer = optimizer
        self.weight, self.bias = weight.double(), bias.double()
        self.first = torch.zeros(LABELS, DIM).double()
        self.bias_first = torch.zeros(LABELS).double()
        self.second = torch.zeros(LABELS, 1 if optimizer == "adam_row" else DIM).double()
        self.bias_second = torch.zeros(LABELS).double()
        self.steps = 0

    def step(self, step: int, negatives: str, rate: float, sgd_rate: float) -> Tensor:
        """The loss."""
        mask = torch.from_numpy(mask_of(step, negatives))
        z, truth = embeddings(step).double(), torch.from_numpy(dense(labels(step))).double()
        logits = z @ self.weight.t() + self.bias
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")[mask].sum()
        gradient = (torch.sigmoid(logits) - truth) * mask / BATCH
        rows, self.steps = mask.any(0), self.steps + 1
        of_weight, of_bias = (gradient.t() @ z)[rows], gradient.sum(0)[rows]
        if self.optimizer == "sgd":
            self.weight[rows] -= rate * sgd_rate * of_weight
        else:
            squares = of_weight.square()
            if self.optimizer == "adam_row":
                squares = squares.mean(1, keepdim=True)
            self.weight[rows] -= rate * self._direction(
                self.first, self.second, rows, of_weight, squares
            )
        self.bias[rows] -= rate * self._direction(
            self.bias_first, self.bias_second, rows, of_bias, of_bias.square()
        )
        return loss / BATCH

    def _direction(
        self, first: Tensor, second: Tensor, rows: Tensor, gradient: Tensor, squares: Tensor
    ) -> Tensor:
        first[rows] = 0.9 * first[rows] + 0.1 * gradient
        second[rows] = 0.999 * second[rows] + 0.001 * squares
        spread = (second[rows] / (1 - 0.999**self.steps)).sqrt() + 1e-8
        return first[rows] / (1 - 0.9**self.steps) / spread


@pytest.mark.parametrize("negatives", MODES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_every_storage_and_optimizer_is_nearly_the_slow_one(
    storage: str, optimizer: str, negatives: str
) -> None:
    ours = make(storage=storage, optimizer=optimizer, sgd_rate=20.0)
    assert ours.weight.dtype == {"float32": torch.float32, "bfloat16": torch.bfloat16}[storage]
    assert ours.bias.dtype == torch.float32
    slow = Slow(optimizer, ours.weight, ours.bias)
    start = ours.weight.double()
    for step in range(3):
        given = candidates(step, (0, LABELS), negatives)
        loss, gradient = ours.step(embeddings(step), given, BATCH, 0.03)
        expected = slow.step(step, negatives, 0.03, 20.0)
        low = storage == "bfloat16"
        assert loss.item() == pytest.approx(expected.item(), rel=2e-2 if low else 1e-4)
        assert gradient.dtype == torch.float32
        # bfloat16 has 8 bits of a number: each step may be off by one of the last place.
        atol = (step + 1) * 2**-7 if low else 1e-3
        torch.testing.assert_close(ours.weight.double(), slow.weight, rtol=1e-2, atol=atol)
        torch.testing.assert_close(ours.bias.double(), slow.bias, rtol=1e-2, atol=2e-3)
    assert (slow.weight - start).abs().max() > 0.05  # far more than what rounding may do


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_ranges_hold_the_very_rows_of_the_whole(storage: str, optimizer: str) -> None:
    """Candidates that are alike give the same rows to the bit, however the labels are cut."""
    cuts = [(0, 3), (3, 13), (13, LABELS)]
    whole = make(storage=storage, optimizer=optimizer)
    parts = [make(cut, storage=storage, optimizer=optimizer) for cut in cuts]
    # One document and whole numbers: products are exact, whatever the number of columns.
    z = torch.tensor([[1.0, -2.0, 4.0, 1.0, 2.0]])
    for step in range(4):
        drawn = np.random.default_rng(step).permutation(LABELS)[:9].astype(np.int32)
        for one in (whole, *parts):
            given = Candidates.build(
                np.zeros((1, 0), np.int32),
                Csr.from_lists([[step, 5]], LABELS),
                one.label_range,
                CPU,
                negatives="union",
                documents=1,
                drawn=drawn,
            )
            one.weight.copy_(one.weight.mul(4).round().div(4))
            one.bias.copy_(one.bias.mul(4).round().div(4))
            one.step(z, given, 1, 0.03)
        together = torch.cat([part.weight for part in parts])
        if (storage, optimizer) == ("float32", "adam"):
            # Torch's kernel treats the last few numbers of a table otherwise than the rest.
            torch.testing.assert_close(together, whole.weight, rtol=1e-6, atol=1e-7)
            continue
        assert torch.equal(together, whole.weight)
        for name, moments in whole.weight_adam.state().items():
            cut = torch.cat([part.weight_adam.state()[name] for part in parts])
            assert torch.equal(cut, moments), name
