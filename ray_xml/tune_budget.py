"""What a search takes of a cluster, and whether it could come to a standstill.

A trial takes CPUs from one pool in two portions that know nothing of each other: its driver
holds ``DRIVER_CPUS`` from its beginning, its workers come when it has begun. A search whose drivers
and workers do not all fit could have drivers that wait for ever, each holding what another needs.
So every trial that may run at a time must fit with all of its processes, wherever Ray puts the
drivers. Label shards take no CPUs of their own, since they take turns with the workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ray_xml.autosize import NodeSize
from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig
from ray_xml.run_text import counted

DRIVER_CPUS = 0.1
_PARTS = (0.95, 0.9, 0.8)  # of a CPU, for workers that would have one but for the drivers
_CLOSE = 1e-6


@dataclass(frozen=True)
class Budget:
    """How many trials run at a time, and what each of their workers gets.

    Attributes:
        arithmetic: a line that says why it fits.
    """

    concurrent: int
    cpus_per_worker: float
    arithmetic: str


def budget(
    resources: ResourcesConfig, nodes: Sequence[NodeSize], trials: int, concurrent: int | None
) -> Budget:
    """What is left open, and whether all fits.

    Args:
        resources: of one trial.
        nodes: of the cluster.
        trials: of the search, which never runs more at a time.
        concurrent: trials at a time; None is as many as fit.

    Raises:
        ResourceError: they do not fit; it shows the arithmetic.
    """
    if concurrent is not None:
        concurrent = min(concurrent, trials)
        each = _share(resources, nodes, concurrent)
        if each is None:
            raise ResourceError(_refusal(resources, nodes, concurrent))
        return _budget(resources, nodes, concurrent, each)
    # Workers compute with one thread at least: more of them than CPUs would only be in the way.
    most = int(sum(node.cpus for node in nodes) / (resources.cpus_per_worker or 1.0))
    most //= resources.workers
    for many in range(min(trials, most), 0, -1):
        each = _share(resources, nodes, many)
        if each is not None:
            return _budget(resources, nodes, many, each)
    raise ResourceError(_refusal(resources, nodes, 1))


def _share(resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int) -> float | None:
    """The most CPUs that each worker can have, or None where they do not fit."""
    largest = int(max((node.cpus for node in nodes), default=0))
    given = resources.cpus_per_worker
    choices = (given,) if given is not None else (*range(largest, 0, -1), *_PARTS)
    if not _shards_fit(resources, nodes, concurrent):
        return None
    wanted = concurrent * resources.workers
    return next(
        (one for one in choices if _places(resources, nodes, concurrent, one) >= wanted), None
    )


def _places(
    resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int, each: float
) -> int:
    """Workers of ``each`` CPUs that fit, all drivers counted on every node: they may land there."""
    left = _gpus_beside_shards(resources, nodes, concurrent)
    total = 0
    for node, gpus in zip(nodes, left, strict=True):
        places = int((node.cpus - concurrent * DRIVER_CPUS) / each + _CLOSE)
        if resources.gpus_per_worker > 0:
            places = min(places, int(gpus / resources.gpus_per_worker + _CLOSE))
        total += max(places, 0)
    return total


def _gpus_beside_shards(
    resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int
) -> list[float]:
    """GPUs of each node that the label shards of all trials leave, most evenly spread."""
    left = [node.gpus for node in nodes]
    if resources.gpus_per_shard > 0:
        for _ in range(concurrent * resources.label_shards):
            fullest = max(range(len(left)), key=lambda node: left[node])
            left[fullest] -= resources.gpus_per_shard
    return left


def _shards_fit(resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int) -> bool:
    return min(_gpus_beside_shards(resources, nodes, concurrent), default=0.0) >= -_CLOSE


def _budget(
    resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int, each: float
) -> Budget:
    return Budget(concurrent, float(each), _sum(resources, nodes, concurrent, each))


def _sum(
    resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int, each: float
) -> str:
    """The CPUs that trials take, of those that there are."""
    total = concurrent * (DRIVER_CPUS + resources.workers * each)
    have = " + ".join(f"{node.cpus:g}" for node in nodes)
    return (
        f"{counted(concurrent, 'trial')} at a time × ({DRIVER_CPUS:g} CPU for the driver + "
        f"{counted(resources.workers, 'worker')} × {each:g} CPU) = {total:g} of {have} CPUs"
    )


def _refusal(resources: ResourcesConfig, nodes: Sequence[NodeSize], concurrent: int) -> str:
    each = resources.cpus_per_worker or _PARTS[-1]
    places = _places(resources, nodes, concurrent, each)
    wanted = concurrent * resources.workers
    text = (
        "the search could come to a standstill, with drivers that wait for workers' CPUs for "
        f"ever: {_sum(resources, nodes, concurrent, each)}; with the drivers' "
        f"{concurrent * DRIVER_CPUS:g} CPU on any node, {places} of {wanted} workers have a place"
    )
    if resources.gpus_per_worker or resources.gpus_per_shard:
        have = " + ".join(f"{node.gpus:g}" for node in nodes)
        text += (
            f". GPUs: {concurrent} × ({counted(resources.workers, 'worker')} × "
            f"{resources.gpus_per_worker:g} + {counted(resources.label_shards, 'label shard')} × "
            f"{resources.gpus_per_shard:g}) of {have}"
        )
    fewer = "lower resources.workers, resources.cpus_per_worker"
    fewer += " or tune.concurrent" if concurrent > 1 else ""
    return f"{text}; {fewer}, or use a larger cluster"
