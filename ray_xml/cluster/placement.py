"""Which node a run's processes lie on.

Label shards hold the memory and take turns with the workers at the CPUs, so each is pinned to a
node: the next one goes where it finds the largest share of a node's CPUs (of its GPUs, where
shards have any). On equal nodes their numbers differ by at most one; a node of twice the size
takes twice as many. Nodes without CPUs, such as a head that only hands out work, get none.
Workers are placed by Ray Train, which knows the same two ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig


@dataclass(frozen=True)
class Node:
    """A node of the cluster that may run something, and what it has in all.

    Attributes:
        id: Ray's hex id, new for each start of the node.
        name: its host name and address, as messages give it.
    """

    id: str
    name: str
    cpus: float
    gpus: float


def cluster_nodes() -> list[Node]:
    """The nodes that are up and have CPUs, in an order that does not change."""
    found = [
        Node(
            id=one["NodeID"],
            name=f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']})",
            cpus=float(one["Resources"].get("CPU", 0)),
            gpus=float(one["Resources"].get("GPU", 0)),
        )
        for one in ray.nodes()
        if one["Alive"]
    ]
    return sorted((node for node in found if node.cpus > 0), key=lambda node: node.id)


def free_nodes() -> list[Node]:
    """As ``cluster_nodes``, with what nobody holds of each at this moment."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    held = {
        (node.node_id, one.resource_name): one.used
        for node in (*status.active_nodes, *status.idle_nodes)
        for one in (node.resource_usage.usage if node.resource_usage else ())
    }
    return [
        replace(
            node,
            cpus=node.cpus - held.get((node.id, "CPU"), 0.0),
            gpus=node.gpus - held.get((node.id, "GPU"), 0.0),
        )
        for node in cluster_nodes()
    ]


def place_shards(nodes: Sequence[Node], resources: ResourcesConfig) -> list[Node]:
    """The node of each label shard.

    Args:
        nodes: all nodes with CPUs, at least one.

    Raises:
        ResourceError: the shards' GPUs do not fit, since a shard lies on one node.
    """
    each = resources.gpus_per_shard
    counts: Counter[str] = Counter()
    placed: list[Node] = []
    for _ in range(resources.label_shards):
        fitting = [n for n in nodes if (counts[n.id] + 1) * each <= n.gpus + 1e-9]
        if not fitting:
            raise ResourceError(
                f"resources.label_shards={resources.label_shards} with {each:g} GPU each do not "
                f"fit: the nodes have {', '.join(f'{n.gpus:g}' for n in nodes)} GPUs; lower "
                "resources.gpus_per_shard or resources.label_shards"
            )
        if resources.placement == "pack":  # the largest node until it is full, then the next
            chosen = max(fitting, key=lambda n: (n.gpus if each else 0, n.cpus))
        else:
            chosen = max(
                fitting,
                key=lambda n: ((n.gpus if each else n.cpus) / (counts[n.id] + 1), n.cpus),
            )
        counts[chosen.id] += 1
        placed.append(chosen)
    return placed


def shard_threads(placed: Sequence[Node]) -> int:
    """CPU threads of a shard: the shards of a node share its CPUs. The slowest sets the pace, so
    all get what the most crowded can have."""
    counts = Counter(node.id for node in placed)
    return max(1, min(int(node.cpus / counts[node.id] + 1e-9) for node in placed))


def worker_places(
    nodes: Sequence[Node], placed: Sequence[Node], cpus_each: float, gpus_each: float, shard: float
) -> int:
    """How many workers of so many CPUs and GPUs fit beside shards with ``shard`` GPUs each."""
    counts = Counter(node.id for node in placed)
    total = 0
    for node in nodes:
        places = int(node.cpus / cpus_each + 1e-9)
        if gpus_each > 0:
            places = min(places, int((node.gpus - counts[node.id] * shard) / gpus_each + 1e-9))
        total += places
    return total


def pinned(node: str) -> Any:
    """The scheduling strategy of a process that must lie on the node with this id."""
    return NodeAffinitySchedulingStrategy(node_id=node, soft=False)


def worker_strategy(resources: ResourcesConfig) -> str:
    """Ray Train's name for how its workers are placed; both give way where nodes are too full."""
    return {"spread": "SPREAD", "pack": "PACK"}[resources.placement]
