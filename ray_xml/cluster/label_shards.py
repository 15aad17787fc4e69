"""Label ranges as Ray actors: started by the driver, asked by the workers.

The actors are detached, so that they outlive a restart of the worker group, and carry a name
that is new for each launch, so that runs on one cluster never meet. ``LabelShards`` removes them.
"""

from __future__ import annotations

import functools
import operator
import resource
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import ray
from torch import Tensor

from ray_xml import partition
from ray_xml.cluster.data_places import local_data
from ray_xml.cluster.placement import cluster_nodes, pinned, place_shards
from ray_xml.cluster.session import NAMESPACE, Shares
from ray_xml.config import build_config
from ray_xml.embeddings import EmbeddingFile
from ray_xml.errors import RayXmlError, TrainingError
from ray_xml.label_index import IndexState
from ray_xml.label_range import LabelRange
from ray_xml.label_search import Found
from ray_xml.partition import Range
from ray_xml.proxies import PairSums
from ray_xml.ranges import Block, rows_within, sum_gradients
from ray_xml.run_config import RunConfig
from ray_xml.run_data import split_rows
from ray_xml.sparse import Subset

_AHEAD = 2  # blocks a worker has under way at each shard


class LabelShard(LabelRange):
    """A label range that builds itself from the data-set folder; plain until made remote."""

    def __init__(self, settings: dict[str, Any], number: int, threads: int, device: str) -> None:
        config = build_config(RunConfig, settings, origin="label shard")
        data = local_data(config)
        rows, _ = split_rows(data, config)
        labels = Subset(data.split("train").labels, rows)
        counts = labels.column_counts()
        ranges = partition.label_ranges(counts, config.resources.label_shards)
        super().__init__(
            ranges[number],
            labels,
            config.resolved(data).shortlist,
            fit_labels=config.proxy.labels,
            counts=counts,
            threads=threads,
            device=device,
        )

    def ping(self) -> Range:
        """The range held; answering means that the shard is up."""
        return self.low, self.high

    def peak_memory(self) -> int:
        """Peak resident bytes of this process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class ShardNames:
    """How a worker finds the shards: their actor names and label ranges, in label order."""

    names: list[str]
    ranges: list[Range]


class LabelShards:
    """Starts the shards of a run and, on leaving the context, ends them."""

    def __init__(self, config: RunConfig, shares: Shares) -> None:
        resources = config.resources
        launch = uuid.uuid4().hex[:12]
        device = "cuda" if resources.gpus_per_shard > 0 else "cpu"
        names = [f"label-shard-{launch}-{i}" for i in range(resources.label_shards)]
        nodes = place_shards(cluster_nodes(), resources)
        remote: Any = ray.remote(LabelShard)
        self._actors: list[Any] = [
            remote.options(
                name=name,
                namespace=NAMESPACE,
                lifetime="detached",
                num_cpus=0,
                num_gpus=resources.gpus_per_shard,
                scheduling_strategy=pinned(node.id),
            ).remote(config.model_dump(mode="json"), number, shares.shard_threads, device)
            for number, (name, node) in enumerate(zip(names, nodes, strict=True))
        ]
        self._names = names

    def names(self) -> ShardNames:
        """Waits until every shard is up.

        Raises:
            TrainingError: a shard could not start; its own traceback is in the message.
        """
        try:
            return ShardNames(self._names, ray.get([a.ping.remote() for a in self._actors]))
        except ray.exceptions.RayError as error:
            raise TrainingError(f"a label shard did not start: {error}") from None

    def __enter__(self) -> LabelShards:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            ray.kill(actor)


class ShardedRanges:
    """``label_range.Ranges`` over the shards' actors, as a worker sees them."""

    def __init__(self, shards: ShardNames) -> None:
        self._actors = [ray.get_actor(name, namespace=NAMESPACE) for name in shards.names]
        self._ranges = shards.ranges
        self._pending: deque[list[Any]] = deque()

    def begin_cycle(self, cycle: int, file: EmbeddingFile) -> None:
        ray.get([a.begin_cycle.remote(cycle, file) for a in self._actors])

    def pair_sums(self, affine: Tensor) -> PairSums:
        given = ray.put(affine)
        sums: list[PairSums] = ray.get([a.pair_sums.remote(given) for a in self._actors])
        return functools.reduce(operator.add, sums)

    def pair_gradient(self, affine: Tensor, key: int, part: int, parts: int) -> tuple[Tensor, int]:
        given = ray.put(affine)
        calls = [a.pair_gradient.remote(given, key, part, parts) for a in self._actors]
        return sum_gradients(ray.get(calls))

    def set_proxies(self, affine: Tensor) -> list[IndexState]:
        return list(ray.get([a.set_proxies.remote(affine) for a in self._actors]))

    def add_rows(self, first: int, weight: np.ndarray, bias: np.ndarray) -> None:
        calls: list[Any] = []
        for actor, held in zip(self._actors, self._ranges, strict=True):
            shared = partition.overlap((first, first + len(weight)), held)
            if shared:
                calls.append(actor.add_rows.remote(*rows_within(shared, first, weight, bias)))
        self._send(calls)

    def index_rows(self) -> list[IndexState]:
        return list(ray.get([a.index_rows.remote() for a in self._actors]))

    def search(
        self,
        blocks: Iterable[Block],
        k: int,
        sources: tuple[str, ...],
        both_scores: bool,
    ) -> Iterator[tuple[int, Found]]:
        under_way: deque[tuple[int, list[Any]]] = deque()
        for key, embeddings, given in blocks:
            block, labels = ray.put(embeddings), ray.put(given)
            calls = [a.search.remote(block, k, sources, both_scores, labels) for a in self._actors]
            under_way.append((key, calls))
            if len(under_way) > _AHEAD:
                yield self._answer(under_way.popleft(), k)
        while under_way:
            yield self._answer(under_way.popleft(), k)

    def save_proxies(self, folder: Path) -> None:
        try:
            ray.get([a.save_proxies.remote(folder, i) for i, a in enumerate(self._actors)])
        except ray.exceptions.RayTaskError as error:
            if isinstance(
                error.cause, RayXmlError
            ):  # such as a full disk: its own words say it all
                raise error.cause from None
            raise

    def flush(self) -> None:
        while self._pending:
            ray.get(self._pending.popleft())

    def peak_memory(self) -> int:
        return sum(ray.get([a.peak_memory.remote() for a in self._actors]))

    def _answer(self, item: tuple[int, list[Any]], k: int) -> tuple[int, Found]:
        return item[0], Found.merge(ray.get(item[1]), k)

    def _send(self, calls: list[Any]) -> None:
        """Sends without waiting, but never more than ``_AHEAD`` blocks ahead of the shards."""
        self._pending.append(calls)
        if len(self._pending) > _AHEAD:
            ray.get(self._pending.popleft())
