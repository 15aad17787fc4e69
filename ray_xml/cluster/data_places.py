"""Where each node finds the run's data set: on a path that all see, or in its own copy, made from
the driver's or from a URL.

With ``resources.data=copy`` the driver, before anything else starts, has every other node pull
the folder in pieces from an actor on the driver's node. A node asks for ``_AHEAD`` pieces at once,
so that a copy takes at most that much of the object stores.
"""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

from ray_xml.cluster.placement import cluster_nodes, pinned
from ray_xml.data_copy import open_copy, receive
from ray_xml.data_url import open_data
from ray_xml.errors import DataSetError, LostError, RayXmlError, TrainingError
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_sections import ResourcesConfig
from ray_xml.storage import is_url
from ray_xml.store import DataSet
from ray_xml.store_meta import DataSetMeta

_PIECE, _AHEAD = 8 * 2**20, 4  # bytes; pieces that a node has under way


def distribute(config: RunConfig, data: DataSet) -> RunConfig:
    """Called by the driver: copies the data to the other nodes if the config says so.

    Returns:
        the config for workers and shards, by which ``local_data`` knows the right data set.

    Raises:
        DataSetError: a copy could not be made; the node is named.
        LostError: a node went meanwhile.
    """
    resources = config.resources.model_copy(update={"data_checksum": data.meta.checksum})
    if resources.data == "copy":
        _copy_to_nodes(resources, data)
    return config.model_copy(update={"resources": resources})


def local_data(config: RunConfig) -> DataSet:
    """Called by every worker and shard: the data set as this process's node has it.

    Raises:
        DataSetError: the node does not have it, or another one in its place.
        TrainingError: the node does not see the run folder.
    """
    resources = config.resources
    if config.run and not RunFolder(config.run).config_file.exists():
        raise TrainingError(
            f"{_this_node()} does not see the run folder {config.run}: the workers of all nodes "
            "write into it, so it must lie on a path that every node shares"
        )
    checksum = resources.data_checksum
    if (resources.data == "copy" or is_url(config.data)) and checksum is not None:
        found = open_copy(_cache(resources), checksum)
        if found is not None:
            return found
    try:
        data = open_data(config.data, _cache(resources))
    except DataSetError as error:
        advice = "" if is_url(config.data) else _advice(resources)
        raise DataSetError(f"{_this_node()}: {error}{advice}") from None
    if checksum is not None and data.meta.checksum != checksum:
        raise DataSetError(
            f"{_this_node()}: {config.data} holds another data set (checksum "
            f"{data.meta.checksum[:12]}) than on the node where the run was started "
            f"({checksum[:12]}){_advice(resources)}"
        )
    return data


def _advice(resources: ResourcesConfig) -> str:
    if resources.data == "copy":
        return (
            f". Nor is there a copy in {_cache(resources)}: the node joined after the run had "
            "begun, or the copy was deleted; start the run again"
        )
    return ". Let every node see the same folder under this path, or set resources.data=copy"


def _this_node() -> str:
    return f"node {socket.gethostname()} ({ray.util.get_node_ip_address()})"


def driver_cache(resources: ResourcesConfig) -> Path:
    """Where a driver that has not joined a cluster yet keeps what it fetches."""
    return Path(resources.data_cache.replace("{node}", "driver")).expanduser()


def _cache(resources: ResourcesConfig) -> Path:
    node = ray.get_runtime_context().get_node_id()
    return Path(resources.data_cache.replace("{node}", node)).expanduser()


class Source:
    """Reads pieces of the data set's files, on the driver's node; plain until made remote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str, first: int) -> np.ndarray:
        """uint8: the piece of a file that begins at byte ``first``."""
        return np.fromfile(self._folder / name, np.uint8, count=_PIECE, offset=first)


def _copy_to_nodes(resources: ResourcesConfig, data: DataSet) -> None:
    """Waits until every node that may run something of the run has its copy."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in cluster_nodes() if node.id != here]
    if not others:
        return
    remote: Any = ray.remote(Source)
    source = remote.options(num_cpus=0, scheduling_strategy=pinned(here)).remote(data.path)
    fetch: Any = ray.remote(_fetch)
    calls = [
        fetch.options(num_cpus=0, max_retries=0, scheduling_strategy=pinned(node.id)).remote(
            source, resources, data.meta
        )
        for node in others
    ]
    print(f"copying the data set to {len(others)} nodes, where it is not", file=sys.stderr)
    try:
        for node, call in zip(others, calls, strict=True):
            try:
                said = ray.get(call)
            except ray.exceptions.RayTaskError as error:
                said = str(error)
            except ray.exceptions.RayError as error:
                raise LostError(f"node {node.name} was lost while it got data: {error}") from None
            if said is not None:
                raise DataSetError(f"the data set could not be copied to node {node.name}: {said}")
    finally:
        ray.kill(source)


def _fetch(source: Any, resources: ResourcesConfig, meta: DataSetMeta) -> str | None:
    """Runs on the node that gets a copy; returns what went wrong, for Ray would wrap an error in
    its traceback."""

    def pieces(name: str, size: int) -> Iterator[np.ndarray]:
        under_way: deque[Any] = deque()
        for first in range(0, size, _PIECE):
            under_way.append(source.read.remote(name, first))
            if len(under_way) >= _AHEAD:
                yield ray.get(under_way.popleft())
        while under_way:
            yield ray.get(under_way.popleft())

    try:
        receive(_cache(resources), meta, pieces)
    except RayXmlError as error:
        return str(error)
    return None
