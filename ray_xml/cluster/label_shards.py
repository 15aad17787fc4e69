"""Label ranges as Ray actors: started by the driver, asked by the workers.

The actors belong to the driver: they end with it, however it ends. They carry a name that is new
for each launch, so that runs on one cluster never meet. One whose process dies is started again by
Ray, which then repeats the calls that it had not answered. Every call names the state that the
range must be in (``range_state``), so a shard that is new reads what it lost, and every answer to
a search names the cycle that it was found in.
"""

from __future__ import annotations

import functools
import operator
import os
import resource
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
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
from ray_xml.errors import LostError, RayXmlError, StaleError, TrainingError
from ray_xml.label_index import IndexState
from ray_xml.label_range import LabelRange
from ray_xml.label_search import Found
from ray_xml.partition import Range
from ray_xml.proxies import PairSums
from ray_xml.range_state import RangeState
from ray_xml.ranges import Block, sum_gradients
from ray_xml.run_config import RunConfig
from ray_xml.run_data import fitted_labels

_AHEAD = 2  # blocks a worker has under way at each shard
_RETRIES = 3  # how often Ray repeats a call whose shard died over it


class LabelShard:
    """A label range that builds itself from the data-set folder; plain until made remote."""

    def __init__(self, settings: dict[str, Any], number: int, threads: int, device: str) -> None:
        config = build_config(RunConfig, settings, origin="label shard")
        data = local_data(config)
        labels = fitted_labels(data, config)
        counts = labels.column_counts()
        ranges = partition.label_ranges(counts, config.resources.label_shards)
        self._range = LabelRange(
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
        return self._range.low, self._range.high

    def bring(self, state: RangeState) -> list[IndexState]:
        return self._range.bring(state)

    def pair_sums(self, state: RangeState, affine: Tensor) -> PairSums:
        return self._in(state).pair_sums(affine)

    def pair_gradient(
        self, state: RangeState, affine: Tensor, key: int, part: int, parts: int
    ) -> tuple[Tensor, int]:
        return self._in(state).pair_gradient(affine, key, part, parts)

    def search(
        self,
        state: RangeState,
        embeddings: np.ndarray,
        k: int,
        sources: tuple[str, ...],
        both_scores: bool,
        given: np.ndarray | None,
    ) -> tuple[int, Found]:
        """(the cycle that it was found in, what was found)."""
        held = self._in(state)
        found = held.search(embeddings, k, sources, both_scores, given)
        assert held.state is not None
        return held.state.cycle, found

    def save_proxies(self, state: RangeState, folder: Path, number: int) -> None:
        self._in(state).save_proxies(folder, number)

    def pid(self) -> int:
        """The process, new for each start."""
        return os.getpid()

    def peak_memory(self) -> int:
        """Peak resident bytes of this process."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def _in(self, state: RangeState) -> LabelRange:
        self._range.bring(state)
        return self._range


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
                max_restarts=-1,
                max_task_retries=_RETRIES,
                num_cpus=0,
                num_gpus=resources.gpus_per_shard,
                scheduling_strategy=pinned(node.id),
            ).remote(config.model_dump(mode="json"), number, shares.shard_threads, device)
            for number, (name, node) in enumerate(zip(names, nodes, strict=True))
        ]
        self._names = names

    def names(self) -> list[str]:
        """The actors' names, in label order, once every shard is up.

        Raises:
            TrainingError: a shard could not start; its own traceback is in the message.
            LostError: its process or node ended while it started.
        """
        try:
            ray.get([a.ping.remote() for a in self._actors])
            return self._names
        except ray.exceptions.ActorDiedError as error:
            # Ray says "creation task" of what the shard itself raised: it would raise it again.
            kind = TrainingError if "creation task" in str(error) else LostError
            raise kind(f"a label shard did not start: {error}") from None
        except ray.exceptions.RayError as error:
            raise LostError(f"a label shard did not start: {error}") from None

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


def get(calls: list[Any]) -> list[Any]:
    """The calls' results; a shard's own word on what went wrong comes without Ray's wrapping."""
    try:
        return list(ray.get(calls))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayXmlError):
            raise error.cause from None
        raise


class ShardedRanges:
    """``ranges.Ranges`` over the shards' actors, as a worker sees them."""

    def __init__(self, names: list[str]) -> None:
        self._actors = [ray.get_actor(name, namespace=NAMESPACE) for name in names]
        self._state: RangeState | None = None

    def bring(self, state: RangeState) -> list[IndexState]:
        self._state = state
        built: list[list[IndexState]] = get([a.bring.remote(state) for a in self._actors])
        return [one for of_shard in built for one in of_shard]

    def follow(self, state: RangeState) -> None:
        self._state = state

    def pair_sums(self, affine: Tensor) -> PairSums:
        given = ray.put(affine)
        calls = [a.pair_sums.remote(self._state, given) for a in self._actors]
        sums: list[PairSums] = get(calls)
        return functools.reduce(operator.add, sums)

    def pair_gradient(self, affine: Tensor, key: int, part: int, parts: int) -> tuple[Tensor, int]:
        given = ray.put(affine)
        calls = [a.pair_gradient.remote(self._state, given, key, part, parts) for a in self._actors]
        return sum_gradients(get(calls))

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
            calls = [
                a.search.remote(self._state, block, k, sources, both_scores, labels)
                for a in self._actors
            ]
            under_way.append((key, calls))
            if len(under_way) > _AHEAD:
                yield self._answer(under_way.popleft(), k)
        while under_way:
            yield self._answer(under_way.popleft(), k)

    def save_proxies(self, folder: Path) -> None:
        calls = [a.save_proxies.remote(self._state, folder, i) for i, a in enumerate(self._actors)]
        get(calls)

    def peak_memory(self) -> int:
        return sum(get([a.peak_memory.remote() for a in self._actors]))

    def _answer(self, item: tuple[int, list[Any]], k: int) -> tuple[int, Found]:
        answers: list[tuple[int, Found]] = get(item[1])
        assert self._state is not None
        for number, (cycle, _) in enumerate(answers):
            if cycle != self._state.cycle:
                raise StaleError(
                    f"label shard {number} answered for cycle {cycle}, but cycle "
                    f"{self._state.cycle} is going on"
                )
        return item[0], Found.merge([found for _, found in answers], k)
