"""What the workers of a group send each other, in the shapes the method needs.

Documents are data-parallel, labels and embedding columns are model-parallel: a step turns
columns into rows, gathers rows, scatters their gradient sums, and turns rows back into columns.
Nothing here has the size of the token table or of the classifier.

One worker is the same code path: with ``size == 1`` every method returns its input.
Shape legend: B documents of the global batch (a multiple of the group's size), D dimensions,
b = B / size documents of this rank, d columns of this rank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ray_xml.partition import even


class Exchange:
    """Collectives over the default process group, or none of them when there is one worker.

    Attributes:
        rank, size: this worker's number and the number of workers.
        bytes_sent: what this rank has sent so far, headers apart.
    """

    def __init__(self) -> None:
        self.active = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        self.rank = dist.get_rank() if self.active else 0
        self.size = dist.get_world_size() if self.active else 1
        self.bytes_sent = 0

    def barrier(self) -> None:
        if self.active:
            dist.barrier()

    def sum_(self, x: Tensor) -> Tensor:
        """Adds ``x`` over the workers, in place."""
        if self.active:
            dist.all_reduce(x)
            self._count(2 * x.numel() * (self.size - 1) // self.size, x)
        return x

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether it is so for any worker; ``device`` is where the workers' exchange works."""
        return bool(self.sum_(torch.tensor(float(here), device=device)) > 0)

    def begin_sum(self, x: Tensor) -> Callable[[], None]:
        """As ``sum_``, but goes on at once; ``x`` holds the sum after the returned call."""
        if not self.active:
            return lambda: None
        work = dist.all_reduce(x, async_op=True)
        self._count(2 * x.numel() * (self.size - 1) // self.size, x)

        def wait() -> None:
            work.wait()

        return wait

    def gather_rows(self, x_bD: Tensor) -> Tensor:
        """[B, D]: the rows of every rank, in rank order."""
        if not self.active:
            return x_bD
        out = x_bD.new_empty((self.size * x_bD.shape[0], *x_bD.shape[1:]))
        dist.all_gather_single(out, x_bD.contiguous())
        self._count(x_bD.numel() * (self.size - 1), x_bD)
        return out

    def scatter_sum_rows(self, x_BD: Tensor) -> Tensor:
        """[b, D]: this rank's rows of the sum over the workers."""
        if not self.active:
            return x_BD
        out = x_BD.new_empty((x_BD.shape[0] // self.size, *x_BD.shape[1:]))
        dist.reduce_scatter_single(out, x_BD.contiguous())
        self._count(x_BD.numel() * (self.size - 1) // self.size, x_BD)
        return out

    def columns_to_rows(self, x_Bd: Tensor, dim: int) -> Tensor:
        """[b, D]: all columns of this rank's documents, from its columns of all of them."""
        if not self.active:
            return x_Bd
        rows = x_Bd.shape[0] // self.size
        widths = [high - low for low, high in even(dim, self.size)]
        sent = x_Bd.contiguous().view(-1)
        out = sent.new_empty(rows * dim)
        dist.all_to_all_single(
            out,
            sent,
            output_split_sizes=[rows * width for width in widths],
            input_split_sizes=[rows * x_Bd.shape[1]] * self.size,
        )
        self._count(rows * x_Bd.shape[1] * (self.size - 1), x_Bd)
        pieces = torch.split(out, [rows * width for width in widths])
        return torch.cat(
            [piece.view(rows, width) for piece, width in zip(pieces, widths, strict=True)], dim=1
        )

    def rows_to_columns(self, x_bD: Tensor) -> Tensor:
        """[B, d]: this rank's columns of all documents, from all columns of its own."""
        if not self.active:
            return x_bD
        rows, dim = x_bD.shape
        ranges = even(dim, self.size)
        low, high = ranges[self.rank]
        sent = torch.cat([x_bD[:, a:b].reshape(-1) for a, b in ranges])
        out = sent.new_empty(self.size * rows * (high - low))
        dist.all_to_all_single(
            out,
            sent,
            output_split_sizes=[rows * (high - low)] * self.size,
            input_split_sizes=[rows * (b - a) for a, b in ranges],
        )
        self._count(rows * (dim - (high - low)), x_bD)
        return out.view(self.size * rows, high - low)

    def _count(self, elements: int, x: Tensor) -> None:
        self.bytes_sent += elements * x.element_size()
