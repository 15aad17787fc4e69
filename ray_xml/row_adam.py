"""Adam that reads and writes only the rows a step touched.

A step of XMC training touches a few of the millions of label rows and token rows. ``RowAdam``
keeps both moments a row and leaves untouched rows alone (as torch's SparseAdam does: their
moments do not decay in between). Kingma & Ba, "Adam", ICLR 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.adam import adam


class RowAdam:
    """First and second moments for the rows of one table.

    Attributes:
        table: float32, first dimension = rows; updated in place.
        first, second: float32, the table's shape.
        steps: float32 scalar, the updates made; the bias correction is the table's, not a row's.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.first = torch.zeros_like(table)
        self.second = torch.zeros_like(table)
        self.steps = torch.zeros((), device=table.device)

    def step(self, rows: Tensor | None, gradient: Tensor, rate: float) -> None:
        """Moves ``table[rows]`` against ``gradient``.

        Gathering the rows, torch's fused kernel and scattering them back is 4-5 times faster on
        CPU than the same arithmetic in separate indexed operations.

        Args:
            rows: int64 [R], distinct row numbers; None means all rows in order.
            gradient: float32 [R, ...], same order as ``rows``.
            rate: the learning rate.
        """
        state = [self.table, self.first, self.second]
        parts = state if rows is None else [part.index_select(0, rows) for part in state]
        with torch.no_grad():
            adam(
                [parts[0]],
                [gradient],
                [parts[1]],
                [parts[2]],
                [],
                [self.steps],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
            if rows is not None:
                for whole, part in zip(state, parts, strict=True):
                    whole.index_copy_(0, rows, part)
