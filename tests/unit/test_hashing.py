"""Dropout masks from hashes: how many are kept, and on what a mask depends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_xml.hashing import dropout_factors, hash_32, stream_key

DOCUMENTS = torch.arange(4000)


def murmur(x: int) -> int:
    """MurmurHash3's 32-bit finaliser in plain integers."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def test_the_hash_is_murmurs_finaliser() -> None:
    items = [0, 1, 2, 77, 2**31, 2**32 - 1, 2**32, 2**40 + 5]
    for key in (0, 1, 2**32 - 1, stream_key(3, 4)):
        expected = [murmur((item + key) % 2**32) for item in items]
        assert hash_32(key, torch.tensor(items)).tolist() == expected


def test_hashes_are_evenly_spread() -> None:
    drawn = hash_32(stream_key(1), torch.arange(200_000)).double() / 2**32
    counts = np.histogram(drawn.numpy(), 20, (0, 1))[0]
    # 10,000 a bin, standard deviation 97: four of them.
    assert abs(counts - 10_000).max() < 400


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_kept_share_and_scale(rate: float) -> None:
    factors = dropout_factors(stream_key(0, 1, 2), DOCUMENTS, 50, rate)
    assert factors.dtype == torch.float32
    kept = (factors > 0).double()
    np.testing.assert_allclose(factors[factors > 0].numpy(), 1 / (1 - rate), rtol=1e-6)
    # 200,000 draws: the standard deviation of the share is at most 0.0011.
    assert abs(kept.mean() - (1 - rate)) < 0.005
    # Each unit and each document by itself: 4,000 and 50 draws.
    assert abs(kept.mean(0) - (1 - rate)).max() < 0.04
    assert abs(kept.mean(1) - (1 - rate)).max() < 0.36


def test_a_mask_is_the_documents_own() -> None:
    key = stream_key(5, 0, 1)
    whole = dropout_factors(key, DOCUMENTS[:100], 30, 0.5)
    order = torch.from_numpy(np.random.default_rng(0).permutation(100))
    assert torch.equal(dropout_factors(key, order, 30, 0.5), whole[order])
    pieces = [dropout_factors(key, part, 30, 0.5) for part in DOCUMENTS[:100].split(17)]
    assert torch.equal(torch.cat(pieces), whole)


def test_streams_differ_by_seed_epoch_and_layer() -> None:
    keys = [stream_key(*parts) for parts in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 2, 0)]]
    assert len(set(keys)) == len(keys)
    masks = [dropout_factors(key, DOCUMENTS, 50, 0.5) > 0 for key in keys]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            # Independent masks agree in half of 200,000 places, within 0.0011.
            assert abs((one == other).double().mean() - 0.5) < 0.006


def test_keys_are_32_bits_and_the_same_every_time() -> None:
    keys = [stream_key(seed, epoch) for seed in range(20) for epoch in range(20)]
    assert all(0 <= key < 2**32 for key in keys)
    assert len(set(keys)) == 400
    assert keys == [stream_key(seed, epoch) for seed in range(20) for epoch in range(20)]
