"""Random numbers that are a function of what they are for, not of who draws them.

Dropout masks and the order of proxy pairs come from an integer hash of (stream, item), so they
are the same on one worker or on many, and a resumed run needs no random-number state to go on
bit for bit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_MASK_32 = 0xFFFFFFFF


def stream_key(*parts: int) -> int:
    """A 32-bit key for one stream of random numbers, such as one layer of one epoch."""
    return int(np.random.default_rng([*parts, 0xD201]).integers(2**32))


def hash_32(key: int, items: Tensor) -> Tensor:
    """int64 in [0, 2^32), evenly spread: a hash of each item under ``key``.

    The mixing is the finaliser of MurmurHash3 (public domain): every input bit flips half of the
    output bits.
    """
    x = (items + key) & _MASK_32
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK_32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK_32
    return x ^ (x >> 16)


def dropout_factors(key: int, documents: Tensor, dim: int, rate: float) -> Tensor:
    """Inverted-dropout factors: 0 with probability ``rate``, else 1 / (1 - rate).

    Args:
        key: the stream, from ``stream_key``.
        documents: int64 [n], document numbers.
        dim: number of units.
        rate: dropout probability in [0, 1).

    Returns:
        float32 [n, dim].
    """
    units = torch.arange(dim, device=documents.device)
    drawn = hash_32(key, documents[:, None] * dim + units[None, :])
    return (drawn >= int(rate * 2**32)).to(torch.float32).mul_(1.0 / (1.0 - rate))
