"""Fitting the proxies: falling loss, no trace of the ranges, and a plain torch training."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from made import begin_cycle, dense, random_csr
from torch import Tensor, nn

from ray_xml.label_range import LabelRange
from ray_xml.partition import even
from ray_xml.proxies import PairSums, ProxyConfig, fit, identity_map
from ray_xml.ranges import LocalRanges
from ray_xml.sparse import Csr

DOCUMENTS, LABELS, DIM = 120, 30, 6


def labels() -> Csr:
    rows = random_csr(np.random.default_rng(2), DOCUMENTS, LABELS, 0.08, binary=True)
    return Csr(rows.offsets, rows.ids, None, LABELS)


def embeddings() -> np.ndarray:
    """float16 [N, D]: near their labels' places, with outliers."""
    rng = np.random.default_rng(3)
    places = 2 * rng.standard_normal((LABELS, DIM))
    z = dense(labels()) @ places + 0.5 * rng.standard_normal((DOCUMENTS, DIM))
    z[::9] += 4 * rng.standard_normal((len(z[::9]), DIM))
    return np.maximum(z, 0).astype(np.float16)


def ranges(parts: int, block: int = 50) -> LocalRanges:
    made = LocalRanges([LabelRange(cut, labels()) for cut in even(LABELS, parts)])
    begin_cycle(made, 0, embeddings(), block=block)
    return made


def pairs() -> tuple[Tensor, Tensor]:
    """(mean embedding of the pair's label, embedding of its document), float64 [P, D] each."""
    whole = torch.from_numpy(dense(labels())).double()
    z = torch.from_numpy(embeddings().astype(np.float64))
    centroids = (whole.t() @ z) / whole.sum(0).clamp_min(1)[:, None]
    document, label = whole.nonzero(as_tuple=True)
    return centroids[label], z[document]


def losses(affine: Tensor) -> Tensor:
    c, z = pairs()
    mapped = c @ affine[:, :-1].t() + affine[:, -1]
    return torch.log1p((mapped - z).square().sum(1))


def some_map(seed: int = 0) -> Tensor:
    noise = torch.randn(DIM, DIM + 1, generator=torch.Generator().manual_seed(seed))
    return identity_map(DIM) + 0.1 * noise.double()


def assert_same(one: PairSums, other: PairSums) -> None:
    torch.testing.assert_close(one.gram, other.gram, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(one.cross, other.cross, rtol=1e-5, atol=1e-4)
    assert one.loss == pytest.approx(other.loss, rel=1e-5)
    assert one.pairs == other.pairs


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_sums_are_those_of_all_pairs(parts: int) -> None:
    affine = some_map()
    c, z = pairs()
    extended = torch.cat([c, torch.ones(len(c), 1, dtype=torch.float64)], 1)
    weight = 1 / (1 + (extended @ affine.t() - z).square().sum(1))
    expected = PairSums(
        (extended * weight[:, None]).t() @ extended,
        (extended * weight[:, None]).t() @ z,
        float(losses(affine).sum()),
        len(c),
    )
    assert_same(ranges(parts).pair_sums(affine), expected)


@pytest.mark.parametrize("parts", [1, 3])
def test_the_gradient_is_autograds(parts: int) -> None:
    affine = some_map().requires_grad_()
    losses(affine).sum().backward()
    made, total, count = ranges(parts), torch.zeros(DIM, DIM + 1, dtype=torch.float64), 0
    sizes = []
    for part in range(4):
        gradient, size = made.pair_gradient(affine.detach(), 11, part, 4)
        total, count = total + gradient, count + size
        sizes.append(size)
    assert count == labels().nnz
    assert min(sizes) > count / 8  # dealt about evenly
    torch.testing.assert_close(total, affine.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("key", [0, 1, 7])
def test_a_pairs_part_depends_on_the_pair_alone(key: int) -> None:
    for part in range(3):
        expected = ranges(1).pair_gradient(some_map(), key, part, 3)
        for parts, block in ((3, 50), (7, 13), (1, 120)):
            found = ranges(parts, block).pair_gradient(some_map(), key, part, 3)
            assert found[1] == expected[1]
            torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-7)
    sizes = {ranges(1).pair_gradient(some_map(), other, 0, 3)[1] for other in range(key, key + 9)}
    assert len(sizes) > 1  # another key, another deal


def test_every_irls_pass_lowers_the_loss() -> None:
    source = ranges(2)
    after = [float(losses(identity_map(DIM)).mean())]
    for passes in range(1, 8):
        config = ProxyConfig(solver="irls", passes=passes, ridge=1e-6)
        affine, seen = fit(source, config, DIM, seed=0)
        after.append(float(losses(affine).mean()))
        # What is reported is the loss that the last pass started from.
        assert seen == pytest.approx(after[-2], rel=1e-5)
    assert all(later < earlier for earlier, later in pairwise(after))
    assert after[-1] < 0.99 * after[0]


def test_irls_settles_where_the_gradient_vanishes() -> None:
    affine, _ = fit(ranges(1), ProxyConfig(solver="irls", passes=100, ridge=0.0), DIM, seed=0)
    affine.requires_grad_()
    losses(affine).mean().backward()
    start = identity_map(DIM).requires_grad_()
    losses(start).mean().backward()
    assert affine.grad.norm() < 1e-3 * start.grad.norm()


def test_the_ridge_pulls_towards_the_identity() -> None:
    def distance(ridge: float) -> float:
        affine, _ = fit(ranges(1), ProxyConfig(solver="irls", ridge=ridge), DIM, seed=0)
        return float((affine - identity_map(DIM)).norm())

    assert distance(1e9) < 1e-6 < distance(10.0) < distance(1e-4)


@pytest.mark.parametrize("solver", ["irls", "adam"])
def test_the_map_does_not_depend_on_the_ranges(solver: str) -> None:
    config = ProxyConfig(solver=solver, hidden=16, batch_size=32, rate=0.01)
    expected, loss = fit(ranges(1), config, DIM, seed=4)
    for parts in (2, 7):
        found, found_loss = fit(ranges(parts), config, DIM, seed=4)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
        assert found_loss == pytest.approx(loss, rel=1e-6)


def test_adam_is_a_training_of_two_linear_layers() -> None:
    config = ProxyConfig(solver="adam", hidden=16, batch_size=40, rate=0.01, epochs=3)
    affine, loss = fit(ranges(2), config, DIM, seed=4)
    assert loss == pytest.approx(float(losses(affine).mean()), rel=1e-5)

    layers = nn.Sequential(nn.Linear(DIM, 16), nn.Linear(16, DIM)).double()
    generator = torch.Generator().manual_seed(4)
    for layer in layers:
        for values in (layer.weight, layer.bias):
            drawn = torch.rand(
                len(values), values[0].numel(), generator=generator, dtype=torch.float64
            )
            # The range of torch.nn.Linear, from the width of the layer's input.
            bound = layer.weight.shape[1] ** -0.5
            values.data = ((2 * drawn - 1) * bound).view(values.shape)
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.01)
    c, z = pairs()
    parts, batches = round(len(c) / 40), batch_members(4, 3, round(len(c) / 40))
    for epoch in range(3):
        for part in range(parts):
            chosen = batches[epoch][part]
            optimizer.zero_grad()
            squares = (layers(c[chosen]) - z[chosen]).square().sum(1)
            torch.log1p(squares).mean().backward()
            optimizer.step()
    weight = layers[1].weight @ layers[0].weight
    bias = layers[1].weight @ layers[0].bias + layers[1].bias
    expected = torch.cat([weight, bias[:, None]], 1).detach()
    torch.testing.assert_close(affine, expected, rtol=1e-3, atol=1e-4)


def batch_members(seed: int, epochs: int, parts: int) -> list[list[Tensor]]:
    """Which pairs each step trains, found by asking one label and document at a time."""
    document, label = np.nonzero(dense(labels()))
    dealt = np.full((epochs, len(label)), -1)
    for pair, (d, one) in enumerate(zip(document, label, strict=True)):
        rows = [[one] if row == d else [] for row in range(DOCUMENTS)]
        alone = LocalRanges([LabelRange((0, LABELS), Csr.from_lists(rows, LABELS))])
        begin_cycle(alone, 0, embeddings())
        for epoch in range(epochs):
            sizes = [
                alone.pair_gradient(identity_map(DIM), seed + epoch, part, parts)[1]
                for part in range(parts)
            ]
            dealt[epoch, pair] = sizes.index(1)
    return [
        [torch.from_numpy(np.flatnonzero(deal == part)) for part in range(parts)] for deal in dealt
    ]


def test_irls_reaches_a_lower_loss_than_adam() -> None:
    start = float(losses(identity_map(DIM)).mean())
    irls, _ = fit(ranges(1), ProxyConfig(), DIM, seed=0)
    adam, _ = fit(
        ranges(1),
        ProxyConfig(solver="adam", epochs=30, hidden=32, rate=0.01, batch_size=32),
        DIM,
        seed=0,
    )
    by_irls, by_adam = float(losses(irls).mean()), float(losses(adam).mean())
    assert by_irls < start
    assert by_adam < start
    assert by_irls <= by_adam + 1e-3
    assert by_adam < by_irls + 0.1


@pytest.mark.parametrize("solver", ["irls", "adam"])
def test_without_pairs_the_map_is_the_identity(solver: str) -> None:
    none = LocalRanges([LabelRange((0, 3), Csr.from_lists([[], []], 3))])
    begin_cycle(none, 0, np.ones((2, DIM), np.float16))
    affine, loss = fit(none, ProxyConfig(solver=solver), DIM, seed=0)
    assert torch.equal(affine, identity_map(DIM))
    assert math.isnan(loss)
