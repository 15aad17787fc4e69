"""Label shards that answer predictions: started for whoever predicts, and asked as one.

They belong to the process that starts them and end with it, however it ends. One whose process dies
is started again by Ray, which then repeats the calls that it had not answered.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from ray_xml.cluster.placement import Node, pinned, place_shards
from ray_xml.cluster.predict_actors import PredictShard
from ray_xml.cluster.session import NAMESPACE
from ray_xml.errors import LostError, RayXmlError, TrainingError
from ray_xml.label_search import Found
from ray_xml.model_place import ModelPlace
from ray_xml.run_sections import ResourcesConfig

_RETRIES = 3  # how often Ray repeats a call whose process died over it
_TELL_AFTER = 30.0  # seconds of waiting for processes to start
COMMON = {"max_restarts": -1, "max_task_retries": _RETRIES, "namespace": NAMESPACE}


def start_shards(
    place: ModelPlace, nodes: Sequence[Node], resources: ResourcesConfig, threads: int
) -> dict[str, Any]:
    """``resources.label_shards`` actors over the nodes, by name, in label order; the names are new
    for each launch, so that two on one cluster never meet."""
    shard: Any = ray.remote(PredictShard)
    placed = place_shards(nodes, resources)
    launch = uuid.uuid4().hex[:12]
    names = [f"predict-shard-{launch}-{number}" for number in range(len(placed))]
    return {
        name: shard.options(
            **COMMON, name=name, num_cpus=0, scheduling_strategy=pinned(node.id)
        ).remote(place, number, len(placed), threads)
        for number, (name, node) in enumerate(zip(names, placed, strict=True))
    }


def wait_ready(actors: Sequence[Any]) -> None:
    """Waits until all have loaded their share of the model.

    Raises:
        RayXmlError: what one of them found wrong with it.
        LostError: one could not start.
    """
    left = [actor.ready.remote() for actor in actors]
    begun, told = time.monotonic(), False
    while left:
        done, left = ray.wait(left, num_returns=1, timeout=1.0)
        for call in done:
            result(call)
        if left and not told and time.monotonic() - begun > _TELL_AFTER:
            told = True
            print(
                f"waiting for {len(left)} processes to start: the cluster's CPUs may be taken",
                file=sys.stderr,
                flush=True,
            )


def result(call: Any, timeout: float | None = None) -> Any:
    """The result of a call, or of several; an actor's own word on what went wrong comes without
    Ray's wrapping.

    Raises:
        RayXmlError: that.
        LostError: a process or node is gone, or does not answer within ``timeout`` seconds.
    """
    try:
        return ray.get(call, timeout=timeout)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RayXmlError):
            raise error.cause from None
        raise TrainingError(f"a process of the prediction failed:\n{error}") from None
    except ray.exceptions.RayError as error:
        raise LostError(str(error)) from None


class ShardedLabels:
    """All labels, held by shards: ``explain.Labels`` for one who is in another process.

    Args:
        names: the shards', in label order.
        timeout: seconds that they may take to answer.
    """

    def __init__(self, names: Sequence[str], timeout: float) -> None:
        self._shards = [ray.get_actor(name, namespace=NAMESPACE) for name in names]
        self._timeout = timeout

    def search(self, embeddings: np.ndarray, k: int, given: np.ndarray) -> Found:
        calls = [one.search.remote(embeddings, k, given) for one in self._shards]
        return self._merged(calls, k)

    def scores(self, embeddings: np.ndarray, given: np.ndarray) -> Found:
        return self._merged([one.scores.remote(embeddings, given) for one in self._shards], 0)

    def check(self, seconds: float) -> None:
        """Raises LostError if one of them does not answer."""
        result([one.ready.remote() for one in self._shards], seconds)

    def _merged(self, calls: list[Any], k: int) -> Found:
        parts: list[Found] = result(calls, self._timeout)
        return parts[0] if len(parts) == 1 else Found.merge(parts, k)
