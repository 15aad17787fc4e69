"""Two ways to share the token table between workers, side by side on one data set's batches.

    python benchmarks/token_exchange.py DATA [--workers 2] [--batch 256] [--dim 300] [--steps 50]

replicated   every worker holds the whole table, encodes its own documents, and sends the
             gradient rows of its distinct tokens to all others (padded all-gather); every worker
             updates all rows of the batch.
columns      every worker holds D / workers columns, sums them for all documents of the batch, and
             columns change hands for rows (``ray_xml.exchange``); every worker updates its columns.

Prints milliseconds a step (median over steps, slowest worker), bytes a worker sends a step, and
bytes of table and optimizer a worker holds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from ray_xml.bags import bags_of, sum_bags, transposed_bags
from ray_xml.exchange import Exchange
from ray_xml.partition import epoch_order, even
from ray_xml.row_adam import RowAdam
from ray_xml.sparse import Csr
from ray_xml.store import DataSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spawn(_worker, (options, folder), nprocs=options.workers)  # type: ignore[no-untyped-call]
        results = json.loads((Path(folder) / "results.json").read_text())
    print(f"{'':<12}{'ms/step':>10}{'KiB sent/step':>16}{'MiB held':>12}")
    for name, row in results.items():
        print(
            f"{name:<12}{row['ms']:>10.2f}{row['sent'] / 1024:>16.0f}{row['held'] / 2**20:>12.1f}"
        )


def _worker(rank: int, options: argparse.Namespace, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=options.workers
    )
    features = DataSet.open(options.data).split("train").features
    order = epoch_order(features.num_rows, seed=0, epoch=0)
    batches = [
        order[start : start + options.batch]
        for start in range(0, options.batch * (options.steps + 5), options.batch)
    ]
    results = {}
    for name, kind in (("replicated", _Replicated), ("columns", _Columns)):
        way = kind(features.num_columns, options.dim)
        times = []
        for rows in batches:
            batch = features.take(rows)
            dist.barrier()
            began = time.perf_counter()
            way.step(batch)
            took = torch.tensor(time.perf_counter() - began)
            dist.all_reduce(took, dist.ReduceOp.MAX)
            times.append(float(took))
        results[name] = {
            "ms": 1000 * float(np.median(times[5:])),
            "sent": way.sent() / len(batches),
            "held": 3 * way.table.numel() * 4,
        }
    if rank == 0:
        (Path(folder) / "results.json").write_text(json.dumps(results))
    dist.destroy_process_group()


class _Replicated:
    def __init__(self, tokens: int, dim: int) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.table = torch.randn(tokens, dim) * 0.01
        self.adam = RowAdam(self.table)
        self._sent = 0

    def sent(self) -> int:
        return self._sent

    def step(self, batch: Csr) -> None:
        own = batch.slice(*even(batch.num_rows, self.size)[self.rank])
        u = sum_bags(self.table, bags_of(own))
        tokens, turned = transposed_bags(own)
        rows = sum_bags(u, turned)  # stands for the gradient: the same shape and cost
        longest = torch.tensor(len(tokens))
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        width = int(longest)
        ids = torch.full((width,), -1, dtype=torch.int64)
        ids[: len(tokens)] = torch.from_numpy(tokens)
        padded = torch.zeros(width, rows.shape[1])
        padded[: len(rows)] = rows
        all_ids = torch.empty(self.size * width, dtype=torch.int64)
        all_rows = torch.empty(self.size * width, rows.shape[1])
        dist.all_gather_single(all_ids, ids)
        dist.all_gather_single(all_rows, padded)
        self._sent += (ids.numel() * 8 + padded.numel() * 4) * (self.size - 1)
        kept = all_ids >= 0
        union, places = torch.unique(all_ids[kept], return_inverse=True)
        summed = torch.zeros(len(union), rows.shape[1]).index_add_(0, places, all_rows[kept])
        self.adam.step(union, summed, 1e-4)


class _Columns:
    def __init__(self, tokens: int, dim: int) -> None:
        self.exchange, self.dim = Exchange(), dim
        low, high = even(dim, self.exchange.size)[self.exchange.rank]
        self.table = torch.randn(tokens, high - low) * 0.01
        self.adam = RowAdam(self.table)

    def sent(self) -> int:
        return self.exchange.bytes_sent

    def step(self, batch: Csr) -> None:
        size = self.exchange.size
        batch = batch.padded(-(-batch.num_rows // size) * size)
        u = self.exchange.columns_to_rows(sum_bags(self.table, bags_of(batch)), self.dim)
        gradient = self.exchange.rows_to_columns(u)
        tokens, turned = transposed_bags(batch)
        self.adam.step(torch.from_numpy(tokens), sum_bags(gradient, turned), 1e-4)


if __name__ == "__main__":
    main()
