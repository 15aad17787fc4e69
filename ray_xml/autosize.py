"""What a run takes of a cluster where its config leaves that open (``resources.workers: 0``).

On GPUs, one worker and one label shard each: they take turns, so each has half of it. On CPUs a
worker for every four, but two at least on a node that has two: a worker's threads share what must
be done one after the other, workers do not. As many label shards as workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray_xml.run_sections import ResourcesConfig

_CPUS = 4  # of a worker on a node of many
_HALF = 0.5


@dataclass(frozen=True)
class NodeSize:
    """CPUs and GPUs of a node."""

    cpus: float
    gpus: float = 0.0


def autosized(resources: ResourcesConfig, nodes: Sequence[NodeSize], most: int) -> ResourcesConfig:
    """``resources`` with whatever they leave open taken from ``nodes``; what they say stays.

    Args:
        nodes: what may be taken of each.
        most: workers, and label shards, that the data and the encoder can be shared by.
    """
    update: dict[str, float] = {}
    if resources.workers == 0:
        by_gpus = sum(min(int(node.gpus), int(node.cpus)) for node in nodes)
        said = resources.gpus_per_worker > 0 or resources.gpus_per_shard > 0
        if said:
            update["workers"] = _beside_said_gpus(resources, nodes)
        elif by_gpus > 0 and resources.device != "cpu":
            update["workers"] = by_gpus
            update["gpus_per_worker"] = update["gpus_per_shard"] = _HALF
        else:
            update["workers"] = sum(_on_cpus(resources, node.cpus) for node in nodes)
        update["workers"] = max(1, min(int(update["workers"]), most))
    if resources.label_shards == 0:
        update["label_shards"] = min(int(update.get("workers", resources.workers)), most)
    return resources.model_copy(update=update)


def of_a_trial(resources: ResourcesConfig, *, gpus: bool) -> ResourcesConfig:
    """Likewise for a trial of a search, which has others beside it: one worker and one label shard,
    on one GPU where the cluster has any."""
    return autosized(resources, [NodeSize(1.0, float(gpus))], 1)


def _on_cpus(resources: ResourcesConfig, cpus: float) -> int:
    if resources.cpus_per_worker is not None:
        return int(cpus / resources.cpus_per_worker + 1e-9)
    return max(min(int(cpus), 2), int(cpus) // _CPUS)


def _beside_said_gpus(resources: ResourcesConfig, nodes: Sequence[NodeSize]) -> int:
    """Workers, each with as many label shards beside it as the config says or else one."""
    each = resources.gpus_per_worker
    fixed = resources.label_shards * resources.gpus_per_shard
    if resources.label_shards == 0:
        each += resources.gpus_per_shard
    total = sum(node.gpus for node in nodes) - fixed
    places = sum(int(node.cpus / (resources.cpus_per_worker or 1.0) + 1e-9) for node in nodes)
    return places if each == 0 else min(places, int(total / each + 1e-9))
