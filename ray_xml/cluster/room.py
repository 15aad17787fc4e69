"""What a run gets of the cluster as it is now, which may be less, or more, than a while ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ray_xml.cluster.placement import cluster_nodes
from ray_xml.cluster.session import Shares, share_out
from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig

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


def wait_for_room(
    resources: ResourcesConfig, where: str, say: Callable[[str], None]
) -> tuple[ResourcesConfig, Shares]:
    """As ``room``, for a run that had it once: lost nodes may be replaced.

    Raises:
        ResourceError: they were not within ``resources.patience`` seconds.
    """
    end, told = time.monotonic() + resources.patience, False
    while True:
        try:
            return room(resources, where)
        except ResourceError as error:
            if time.monotonic() > end:
                raise ResourceError(
                    f"{error}. Waited {resources.patience:.0f} s for lost nodes to come back "
                    "(resources.patience); the same command goes on when they are there"
                ) from None
            if not told:
                say(f"waiting for nodes: {error}")
                told = True
            time.sleep(_POLL_SECONDS)


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
