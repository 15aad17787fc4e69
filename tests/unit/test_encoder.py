"""The encoder against a dense reimplementation on autograd, and over gloo groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from groups import Groups
from made import dense, random_csr
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ray_xml.encoder import Encoder, EncoderConfig, TokenBatch, residual_block
from ray_xml.exchange import Exchange
from ray_xml.hashing import dropout_factors, stream_key
from ray_xml.partition import even
from ray_xml.sparse import Csr

TOKENS, DIM, BATCH, SEED = 30, 6, 12, 5
RATES = [0.05, 0.05, 0.01]


def features(step: int) -> Csr:
    return random_csr(np.random.default_rng(step), BATCH, TOKENS, 0.15)


def documents(step: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(step).permutation(1000)[:BATCH])


def start() -> Tensor:
    return torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(1))


def gradient(step: int) -> Tensor:
    return torch.randn(BATCH, DIM, generator=torch.Generator().manual_seed(100 + step))


def make(dropout: float, exchange: Exchange | None = None) -> Encoder:
    exchange = exchange or Exchange()
    low, high = even(DIM, exchange.size)[exchange.rank]
    table = start()[:, low:high].clone()
    encoder = Encoder(EncoderConfig(dim=DIM, dropout=dropout), table, exchange, seed=SEED)
    with torch.no_grad():
        # Away from the identity, where spectral normalisation does little.
        noise = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(2))
        encoder.weight += 0.3 * noise
        encoder.bias += 0.1
    return encoder


class Dense(nn.Module):
    """The same encoder over a dense matrix, spectral normalisation by torch."""

    def __init__(self, encoder: Encoder, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.table = nn.Parameter(start())
        self.linear = nn.Linear(DIM, DIM)
        with torch.no_grad():
            self.linear.weight.copy_(encoder.weight)
            self.linear.bias.copy_(encoder.bias)
        spectral_norm(self.linear, n_power_iterations=1)
        self.align(encoder.power)

    @torch.no_grad()
    def align(self, power: Tensor) -> None:
        """Starts from the encoder's power vector; torch keeps the right one of the step before."""
        parts = self.linear.parametrizations.weight
        parts[0]._u.copy_(power)
        parts[0]._v.copy_(F.normalize(parts.original.t() @ power, dim=0))

    def forward(self, step: int, epoch: int) -> Tensor:
        x = torch.from_numpy(dense(features(step)))
        v = F.relu(x @ self.table)
        masks = [1.0, 1.0]
        if self.training and self.dropout:
            masks = [
                dropout_factors(stream_key(SEED, epoch, layer), documents(step), DIM, self.dropout)
                for layer in (0, 1)
            ]
        v = v * masks[0]
        return v + F.relu(self.linear(v)) * masks[1]


def train_step(encoder: Encoder, step: int, epoch: int) -> Tensor:
    batch = TokenBatch.build(documents(step), features(step), torch.device("cpu"))
    z, u = encoder.forward(batch, epoch)
    encoder.backward(batch, z, u, gradient(step)[encoder.own_rows(BATCH)], RATES[step])
    return z.detach()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_is_that_of_a_dense_encoder(dropout: float) -> None:
    encoder = make(dropout)
    other = Dense(encoder, dropout)
    block = torch.optim.Adam([other.linear.parametrizations.weight.original, other.linear.bias])
    table = torch.optim.SparseAdam([other.table])
    for step in range(3):
        epoch = step // 2
        other.align(encoder.power)
        expected = other(step, epoch)
        other.zero_grad()
        expected.backward(gradient(step))
        z = train_step(encoder, step, epoch)
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(z, expected.detach(), **close)
        # Rows of tokens that are in the batch, however small their gradient, take a step.
        touched = torch.from_numpy(np.unique(features(step).ids).astype(np.int64))
        rows = other.table.grad[touched]
        other.table.grad = torch.sparse_coo_tensor(
            touched[None], rows, other.table.shape, check_invariants=True
        )
        for optimizer in (block, table):
            optimizer.param_groups[0]["lr"] = RATES[step]
            optimizer.step()
        torch.testing.assert_close(encoder.table, other.table.detach(), **close)
        original = other.linear.parametrizations.weight.original.detach()
        torch.testing.assert_close(encoder.weight.detach(), original, **close)
        torch.testing.assert_close(encoder.bias.detach(), other.linear.bias.detach(), **close)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_those_of_a_dense_encoder(dropout: float) -> None:
    encoder = make(dropout)
    other = Dense(encoder, dropout)
    other(0, 3).backward(gradient(0))
    batch = TokenBatch.build(documents(0), features(0), torch.device("cpu"))
    z, u = encoder.forward(batch, 3)
    found = torch.autograd.grad(z, [u, encoder.weight, encoder.bias], gradient(0))
    weight = other.linear.parametrizations.weight.original.grad
    torch.testing.assert_close(found[1], weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[2], other.linear.bias.grad, rtol=1e-4, atol=1e-5)
    through_bag = torch.from_numpy(dense(features(0))).t() @ found[0]
    torch.testing.assert_close(through_bag, other.table.grad, rtol=1e-4, atol=1e-5)


def test_untouched_tokens_stay_as_they_are() -> None:
    encoder = make(0.0)
    train_step(encoder, 0, 0)
    unused = np.setdiff1d(np.arange(TOKENS), features(0).ids)
    assert 0 < len(unused) < TOKENS
    assert torch.equal(encoder.table[unused], start()[unused])
    assert not torch.equal(encoder.table, start())


def test_encoding_is_in_evaluation_mode() -> None:
    encoder = make(0.5)
    train_step(encoder, 0, 0)
    before = encoder.power.clone()
    z = encoder.encode(features(1))
    assert not z.requires_grad
    assert torch.equal(z, encoder.encode(features(1)))
    assert torch.equal(encoder.power, before)
    sigma = encoder.power @ encoder.weight @ F.normalize(encoder.weight.t() @ encoder.power, dim=0)
    v = F.relu(torch.from_numpy(dense(features(1))) @ encoder.table)
    expected = v + F.relu(v @ (encoder.weight / sigma).t() + encoder.bias)
    torch.testing.assert_close(z, expected.detach(), rtol=1e-5, atol=1e-6)
    u = torch.from_numpy(dense(features(1))) @ encoder.table
    again = residual_block(u, encoder.normalised_weight(), encoder.bias)
    torch.testing.assert_close(z, again.detach(), rtol=1e-5, atol=1e-6)


def test_the_power_vector_finds_the_largest_singular_value() -> None:
    encoder = make(0.0)
    for _ in range(200):
        encoder._power_step()
    largest = torch.linalg.svdvals(encoder.normalised_weight().detach())[0]
    assert abs(largest.item() - 1) < 1e-5


def group_steps(dropout: float) -> dict[str, np.ndarray]:
    """Three training steps and an encoding on one rank; runs in a group."""
    encoder = make(dropout, Exchange())
    z = [train_step(encoder, step, 0) for step in range(3)]
    made = {"z": torch.stack(z), "table": encoder.table, "encoded": encoder.encode(features(7))}
    made |= {"weight": encoder.weight.detach(), "bias": encoder.bias.detach()}
    return {name: value.numpy() for name, value in (made | {"power": encoder.power}).items()}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_groups_train_like_one_process(groups: Groups, dropout: float) -> None:
    alone = group_steps(dropout)
    for size in (2, 3):
        parts = groups.run(size, group_steps, dropout)
        together = {
            "z": np.concatenate([part["z"] for part in parts], 1),
            "encoded": np.concatenate([part["encoded"] for part in parts]),
            "table": np.concatenate([part["table"] for part in parts], 1),
        }
        for name in ("weight", "bias", "power"):
            together[name] = parts[0][name]
            for part in parts[1:]:
                np.testing.assert_array_equal(part[name], parts[0][name])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
