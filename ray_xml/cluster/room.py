"""What a run gets of the cluster as it is now, which may be less, or more, than a while ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray.autoscaler.sdk import request_resources

from ray_xml.autosize import NodeSize, autosized
from ray_xml.cluster.placement import Node, cluster_nodes, free_nodes
from ray_xml.cluster.session import Shares, largest_share, share_out
from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig
from ray_xml.run_text import counted

_POLL_SECONDS = 2.0


def room(resources: ResourcesConfig, where: str) -> tuple[ResourcesConfig, Shares]:
    """As many workers as the nodes hold, from ``workers`` down to ``min_workers``.

    Raises:
        ResourceError: the nodes do not hold the fewest either; it tells of all that are wanted.
    """
    first: ResourceError | None = None
    nodes = cluster_nodes()
    for workers in range(resources.workers, resources.fewest_workers - 1, -1):
        fewer = resources.model_copy(update={"workers": workers})
        try:
            return fewer, share_out(fewer, nodes, where)
        except ResourceError as error:
            first = first or error
    assert first is not None
    raise first


def taken(
    resources: ResourcesConfig, most: int, where: str, say: Callable[[str], None]
) -> ResourcesConfig:
    """``resources`` with what they leave open taken from what is free of the cluster now, which is
    then told. The run keeps to it as to a config that says so, but goes on with fewer workers when
    nodes are lost.

    Args:
        most: workers and label shards that the run can be shared by.

    Raises:
        ResourceError: the cluster has no node and none came in ``start_patience``.
    """
    if resources.workers > 0 and resources.label_shards > 0:
        return resources
    if not cluster_nodes():  # ask for one: what comes says how much to take
        one = autosized(resources, [], most)
        wait_for_room(one, where, one.start_patience, say)
    nodes = free_nodes()
    if not any(node.cpus >= 1 for node in nodes):
        say(f"nothing of {where} is free; waiting for what others hold")
        nodes = cluster_nodes()
    found = autosized(resources, [NodeSize(node.cpus, node.gpus) for node in nodes], most)
    if resources.workers == 0:
        each = resources.cpus_per_worker
        if each is None and nodes != cluster_nodes():  # else all is shared out at every start
            each = float(largest_share([node.cpus for node in nodes], found.workers))
        fewest = resources.min_workers or 1
        found = found.model_copy(update={"cpus_per_worker": each, "min_workers": fewest})
    say(_told(found, nodes, where))
    return found


def _told(resources: ResourcesConfig, nodes: Sequence[Node], where: str) -> str:
    cpus, gpus = (sum(getattr(node, kind) for node in nodes) for kind in ("cpus", "gpus"))
    each = [f"{resources.cpus_per_worker:g} CPU"] if resources.cpus_per_worker else []
    each += [f"{resources.gpus_per_worker:g} GPU"] if resources.gpus_per_worker else []
    workers = counted(resources.workers, "worker") + (f" of {' and '.join(each)}" if each else "")
    shards = counted(resources.label_shards, "label shard")
    if resources.gpus_per_shard:
        shards += f" of {resources.gpus_per_shard:g} GPU"
    free = counted(cpus, "CPU") + (f" and {counted(gpus, 'GPU')}" if gpus else "")
    on = f"{where}'s {len(nodes)} nodes" if len(nodes) > 1 else where
    return f"taking {workers}, {shards}; free on {on}: {free}"


def wait_for_room(
    resources: ResourcesConfig, where: str, seconds: float, say: Callable[[str], None]
) -> tuple[ResourcesConfig, Shares]:
    """As ``room``, but gives nodes some time to come: lost ones may be replaced, and an autoscaler
    is asked for those that are missing.

    Raises:
        ResourceError: they did not come within so many seconds.
    """
    end, asked = time.monotonic() + seconds, False
    try:
        while True:
            try:
                return room(resources, where)
            except ResourceError as error:
                if seconds == 0:
                    raise
                if time.monotonic() > end:
                    raise ResourceError(
                        f"{error}. Waited {seconds:.0f} s for nodes; the same command goes on when "
                        "they are there"
                    ) from None
                if not asked:
                    say(f"waiting for nodes: {error}")
                    request_resources(bundles=_bundles(resources))
                    asked = True
                time.sleep(_POLL_SECONDS)
    finally:
        if asked:  # from here on what runs holds its nodes
            request_resources(bundles=[])


def _bundles(resources: ResourcesConfig) -> list[dict[str, float]]:
    """What an autoscaler has to find nodes for."""
    worker = {"CPU": resources.cpus_per_worker or 1.0, "GPU": resources.gpus_per_worker}
    shard = {"GPU": resources.gpus_per_shard}
    wanted = [worker] * resources.workers + [shard] * resources.label_shards
    return [held for one in wanted if (held := {name: n for name, n in one.items() if n > 0})]


@contextmanager
def watching_for_more(
    wanted: ResourcesConfig, workers: int, where: str, pause_file: Path
) -> Iterator[None]:
    """While the block runs with fewer workers than wanted: asks for a pause once there is room."""
    pause_file.unlink(missing_ok=True)
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(_POLL_SECONDS):
            try:
                more = room(wanted, where)[0].workers
            except ResourceError:
                continue
            if more > workers:
                pause_file.touch()
                return

    thread = threading.Thread(target=look, name="room", daemon=True)
    if workers < wanted.workers:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        pause_file.unlink(missing_ok=True)
