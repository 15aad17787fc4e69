"""Label shards and document workers, started together, handed work, and ended together."""

from __future__ import annotations

import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

import ray

from ray_xml.cluster.placement import Node, cluster_nodes
from ray_xml.cluster.predict_actors import PredictWorker
from ray_xml.cluster.predict_shards import COMMON, result, start_shards, wait_ready
from ray_xml.cluster.session import share_out
from ray_xml.errors import LostError, TrainingError
from ray_xml.model_place import ModelPlace
from ray_xml.run_sections import ResourcesConfig

_MAX_LOST = 3  # starts in a row that end without anything done
_PAUSE = 5.0  # seconds before a new start: a lost node takes a while to be noticed
Task = TypeVar("Task")


def sized(nodes: Sequence[Node], workers: int | None, shards: int | None) -> tuple[int, int]:
    """(workers, label shards): a worker a node, and as many shards, where nothing is said."""
    workers = workers or max(len(nodes), 1)
    return workers, shards or workers


class Crew:
    """Ends with its context. Its actors belong to this process and end with it, however it ends."""

    def __init__(self, place: ModelPlace, resources: ResourcesConfig, where: str) -> None:
        """
        Raises:
            ResourceError: the nodes do not hold it.
        """
        nodes = cluster_nodes()
        share_out(resources.model_copy(update={"cpus_per_worker": 1.0}), nodes, where)
        workers, shards = resources.workers, resources.label_shards
        threads = max(1, int(sum(node.cpus for node in nodes) / (workers + shards)))
        launch = uuid.uuid4().hex[:12]
        worker: Any = ray.remote(PredictWorker)
        held = start_shards(place, nodes, resources, threads)
        self._shards: list[Any] = list(held.values())
        self._workers: list[Any] = [
            worker.options(
                **COMMON, name=f"predict-worker-{launch}-{n}", num_cpus=1,
                scheduling_strategy="SPREAD",
            ).remote(place, list(held), threads)
            for n in range(workers)
        ]  # fmt: skip

    def ready(self) -> None:
        """Waits until all have loaded their share of the model.

        Raises:
            RayXmlError: what one of them found wrong with it.
            LostError: one could not start.
        """
        wait_ready((*self._shards, *self._workers))

    def each(
        self, tasks: Iterable[Task], begin: Callable[[Any, Task], Any]
    ) -> Iterator[tuple[Task, Any]]:
        """(task, result) as they come; a worker that is done gets the next task.

        Args:
            begin: calls a worker's remote method for a task.

        Raises:
            RayXmlError: what a worker found wrong.
            LostError: a process or node is gone for good.
        """
        left, idle = deque(tasks), deque(self._workers)
        under_way: dict[Any, tuple[Task, Any]] = {}
        while left or under_way:
            while left and idle:
                task, worker = left.popleft(), idle.popleft()
                under_way[begin(worker, task)] = (task, worker)
            (call,), _ = ray.wait(list(under_way), num_returns=1)
            task, worker = under_way.pop(call)
            idle.append(worker)
            yield task, result(call)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in (*self._workers, *self._shards):
            ray.kill(actor)


def done_by_crews(
    place: ModelPlace,
    resources: ResourcesConfig,
    where: str,
    tasks: Iterable[Task],
    begin: Callable[[Any, Task], Any],
) -> Iterator[tuple[Task, Any]]:
    """As ``Crew.each``, with a new crew for what is left where one was lost.

    Raises:
        RayXmlError: what a worker found wrong.
        ResourceError: the nodes that are left do not hold a crew.
        TrainingError: crews were lost several times in a row without anything done.
    """
    left = dict(enumerate(tasks))
    lost = 0
    while left:
        try:
            with Crew(place, resources, where) as crew:
                crew.ready()
                numbered = crew.each(list(left), lambda worker, n: begin(worker, left[n]))
                for number, made in numbered:
                    lost = 0
                    yield left.pop(number), made
        except LostError as error:
            lost += 1
            if lost > _MAX_LOST:
                raise TrainingError(
                    f"{error}\ngave up after {lost} losses without a part in between; the same "
                    "command goes on with what is left"
                ) from None
            print(
                f"lost: {str(error).splitlines()[0]}; starting again", file=sys.stderr, flush=True
            )
            time.sleep(_PAUSE)
