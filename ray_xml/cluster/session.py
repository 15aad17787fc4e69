"""Joining or starting a Ray cluster, quietly, and leaving nothing behind."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from ray_xml.cluster.placement import Node, place_shards, shard_threads, worker_places
from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig

NAMESPACE = "ray_xml"

# Train hands over one report a poll; its default of 2 s would throttle short epochs.
# Its patch of print would show workers' lines twice.
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Shares:
    """What each process of a run gets.

    Attributes:
        cpus_per_worker: as told to Ray.
        worker_threads, shard_threads: CPU threads a process computes with. Workers and shards
            take turns, so both kinds may use all CPUs.
    """

    cpus_per_worker: float
    worker_threads: int
    shard_threads: int


def joins_cluster(resources: ResourcesConfig) -> bool:
    """Whether a run joins an existing cluster rather than starting one on this machine."""
    if resources.address == "local":
        return False
    return resources.address is not None or bool(os.environ.get("RAY_ADDRESS"))


def check_local(resources: ResourcesConfig) -> None:
    """Refuses, before any process starts, what this machine cannot hold."""
    if not joins_cluster(resources):
        _check_workers(resources, [float(os.cpu_count() or 1)], "this machine")


def _places(nodes: Sequence[float], each: float) -> int:
    """How many processes of ``each`` CPUs fit, none of them over two nodes."""
    return sum(int(cpus / each + 1e-9) for cpus in nodes)


def largest_share(nodes: Sequence[float], processes: int) -> int:
    """The most whole CPUs that each process can have, or 1."""
    choices = range(int(max(nodes, default=1.0)), 1, -1)
    return next((each for each in choices if _places(nodes, each) >= processes), 1)


def _check_workers(resources: ResourcesConfig, nodes: Sequence[float], where: str) -> float:
    """CPUs of a worker, of ``nodes`` with so many each; refuses workers that they cannot hold."""
    each = resources.cpus_per_worker or largest_share(nodes, resources.workers)
    if _places(nodes, each) < resources.workers:
        spread = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
        raise ResourceError(
            f"resources.workers={resources.workers} with {each:g} CPU each need "
            f"{resources.workers * each:g} CPUs, but {where} has {sum(nodes):g}{spread}; lower "
            "resources.workers or resources.cpus_per_worker, or join a larger cluster"
        )
    return each


def share_out(resources: ResourcesConfig, nodes: Sequence[Node], where: str) -> Shares:
    """Shares out the nodes.

    Raises:
        ResourceError: they cannot hold the run.
    """
    if not nodes:
        raise ResourceError(f"{where} has no node with CPUs; wait for one, or add one")
    each = _check_workers(resources, [node.cpus for node in nodes], where)
    gpus = sum(node.gpus for node in nodes)
    wanted_gpus = (
        resources.workers * resources.gpus_per_worker
        + resources.label_shards * resources.gpus_per_shard
    )
    if wanted_gpus > gpus:
        raise ResourceError(
            f"the run asks for {wanted_gpus:g} GPUs (workers and label shards), but {where} has "
            f"{gpus:g}; lower resources.gpus_per_worker and resources.gpus_per_shard"
        )
    placed = place_shards(nodes, resources)
    per_worker, per_shard = resources.gpus_per_worker, resources.gpus_per_shard
    places = worker_places(nodes, placed, each, per_worker, per_shard)
    if places < resources.workers:
        raise ResourceError(
            f"beside the label shards, the GPUs of {where}'s nodes have room for {places} of the "
            f"{resources.workers} workers with {per_worker:g} each; lower "
            "resources.gpus_per_worker, or try resources.placement=pack"
        )
    return Shares(
        cpus_per_worker=each,
        worker_threads=max(1, int(each)),
        shard_threads=shard_threads(placed),
    )


def set_environment() -> None:
    """Ray settings that must be in place before Ray starts, unless the user set them."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


@contextmanager
def session(resources: ResourcesConfig) -> Iterator[str]:
    """A connection to the cluster; a cluster started here ends with it.

    Yields:
        what to call it in a message.

    Raises:
        ResourceError: it cannot be reached, or this machine is smaller than what the run asks for.
    """
    if ray.is_initialized():  # the caller's connection, and the caller's to end
        yield "the cluster"
        return
    check_local(resources)
    set_environment()
    joins = joins_cluster(resources)
    address = resources.address if resources.address else ("auto" if joins else "local")
    variables = {name: os.environ[name] for name in _DEFAULTS}
    named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
    if named and address != "local":
        # Ray's own helpers look for their cluster by it where a machine runs several: Ray Train's
        # would take the controller for dead, and the workers' room away.
        variables["RAY_ADDRESS"] = named
    options: dict[str, Any] = (
        {} if joins else {"num_cpus": os.cpu_count(), "dashboard_host": "127.0.0.1"}
    )
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            runtime_env={"env_vars": variables},
            **options,
        )
    except (AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        hint = ""
        # Elsewhere Ray tells a client without the right token only that it cannot connect.
        if joins and not isinstance(error, AuthenticationError):
            hint = (
                ". Where it has token authentication, set RAY_AUTH_MODE=token and have its token "
                "in ~/.ray/auth_token, or in the file that RAY_AUTH_TOKEN_PATH names"
            )
        raise ResourceError(
            f"the Ray cluster at {address!r} cannot be joined: {error}{hint}"
        ) from error
    try:
        yield "the cluster" if joins else "this machine"
    finally:
        ray.shutdown()
