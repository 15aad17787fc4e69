"""Adam for tables too large for float32 weights and two float32 moments.

Weights and first moments may be bfloat16. A weight that moves by less than half of bfloat16's
last place would never move under rounding to the nearest, so weights are rounded up or down at
random, in proportion to the distance (stochastic rounding; Gupta et al., "Deep learning with
limited numerical precision", ICML 2015): right on average.

Second moments, of which Adam needs only the size of a step, are one of

    element   one a weight, as in Adam
    row       the mean of the squares of a row (as Adam-mini's blocks; Zhang et al., 2024)
    none      no moments at all: stochastic gradient descent

As in ``row_adam``, rows that a step does not touch keep their moments as they are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ray_xml.hashing import hash_32, stream_key

Second = Literal["element", "row", "none"]

_CHUNK = 512  # rows updated at a time on a CPU: they stay in its cache
_PATTERNS = 1024  # rows of random bits that rows of the table choose from, anew at each step
_BETA_1, _BETA_2, _EPS = 0.9, 0.999, 1e-8


def moment_bytes(rows: int, dim: int, item: int, second: Second) -> int:
    """Bytes of the moments of a [rows, dim] table whose numbers take ``item`` bytes each."""
    return {"element": 2 * rows * dim * item, "row": rows * (dim * item + 4), "none": 0}[second]


class LeanAdam:
    """Moments for the rows of one table, in its own type.

    Attributes:
        table: float32 or bfloat16 [R, D]; updated in place.
        first: the table's type and shape; without moments [0].
        second: the table's type and shape, float32 [R], or [0].
        steps: float32 scalar on the CPU, the updates made.
    """

    def __init__(self, table: Tensor, second: Second, *, first_row: int = 0, seed: int = 0) -> None:
        """
        Args:
            first_row: the number that row 0 has in the table that this one is a part of:
                rounding must not depend on how a table is cut.
        """
        rows, dim = table.shape
        self.table, self._second_kind = table, second
        self._first_row, self._seed = first_row, seed
        shape = {"element": (rows, dim), "row": (rows,), "none": (0,)}[second]
        kind = torch.float32 if second == "row" else table.dtype
        self.first = torch.zeros((0,) if second == "none" else (rows, dim), dtype=table.dtype)
        self.first = self.first.to(table.device)
        self.second = torch.zeros(shape, dtype=kind, device=table.device)
        self.steps = torch.zeros(())
        self._patterns: Tensor | None = None
        if table.dtype == torch.bfloat16:
            # Each column holds evenly spread values, so that every weight's errors cancel out.
            random = np.random.default_rng([seed, 0x5B17])
            spread = np.tile(np.arange(_PATTERNS) * (65536 // _PATTERNS), (dim, 1))
            spread = random.permuted(spread, axis=1).T + random.integers(
                65536 // _PATTERNS, size=(_PATTERNS, dim)
            )
            self._patterns = torch.from_numpy(spread.astype(np.int32)).to(table.device)

    def state(self) -> dict[str, Tensor]:
        """The moments by name, as a checkpoint keeps them."""
        named = {"first": self.first, "second": self.second}
        return {name: part for name, part in named.items() if part.numel()}

    @torch.no_grad()
    def step(self, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """Moves ``table[rows]`` against ``gradient``; see ``RowAdam.step``."""
        if rows is None:
            rows = torch.arange(len(self.table), device=self.table.device)
        self.steps += 1
        count = float(self.steps)
        key = stream_key(self._seed, int(count), 0x5B)
        chunk = _CHUNK if self.table.device.type == "cpu" else max(len(rows), 1)
        for begin in range(0, len(rows), chunk):
            part = rows[begin : begin + chunk]
            pattern = hash_32(key, part + self._first_row) % _PATTERNS
            self._update(part, gradient[begin : begin + chunk], rate, count, pattern)

    def _update(
        self, rows: Tensor, gradient: Tensor, rate: float, count: float, pattern: Tensor
    ) -> None:
        weight = _take(self.table, rows)
        if self._second_kind == "none":
            _put(self.table, rows, weight.sub_(gradient, alpha=rate), self._noise(pattern))
            return
        first = _take(self.first, rows).lerp_(gradient, 1 - _BETA_1)
        _put(self.first, rows, first, None)
        if self._second_kind == "row":
            second = self.second.index_select(0, rows)
            second.lerp_(gradient.square().mean(1), 1 - _BETA_2)
            self.second.index_copy_(0, rows, second)
            scale = (second / (1 - _BETA_2**count)).sqrt_().add_(_EPS)[:, None]
        else:
            second = _take(self.second, rows).lerp_(gradient.square(), 1 - _BETA_2)
            scale = (second / (1 - _BETA_2**count)).sqrt_().add_(_EPS)
            _put(self.second, rows, second, self._noise((pattern + 1) % _PATTERNS))
        weight.addcdiv_(first, scale, value=-rate / (1 - _BETA_1**count))
        _put(self.table, rows, weight, self._noise(pattern))

    def _noise(self, pattern: Tensor) -> Tensor | None:
        return None if self._patterns is None else self._patterns.index_select(0, pattern)


def _take(table: Tensor, rows: Tensor) -> Tensor:
    """float32: a copy of some rows. numpy moves whole rows twice as fast as torch does on a CPU."""
    if table.device.type != "cpu":
        return table.index_select(0, rows).float()
    if table.dtype == torch.float32:
        return torch.from_numpy(table.numpy()[rows.numpy()])
    taken = torch.from_numpy(table.view(torch.int16).numpy()[rows.numpy()])
    return taken.view(torch.bfloat16).float()


def _put(table: Tensor, rows: Tensor, values: Tensor, noise: Tensor | None) -> None:
    """Writes float32 rows back; may overwrite ``values``.

    Args:
        noise: int32 in 0..65535, the shape of ``values``: what is added to the bits that rounding
            drops. None rounds to the nearest.
    """
    if noise is not None:
        bits = values.view(torch.int32).add_(noise)
        # The upper half of a float32 is a bfloat16.
        low = bits.bitwise_right_shift_(16).to(torch.int16).view(torch.bfloat16)
    else:
        low = values.to(table.dtype)
    if table.device.type != "cpu":
        table.index_copy_(0, rows, low)
    elif table.dtype == torch.float32:
        table.numpy()[rows.numpy()] = low.numpy()
    else:
        table.view(torch.int16).numpy()[rows.numpy()] = low.view(torch.int16).numpy()
