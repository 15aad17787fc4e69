"""Where a run under faults lives: on a cluster of its own, or on one that was there before it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from points import FOLDER
from processes import carrying, wait_for

# For Ray, beside other work: workers of its usual niceness may be kept waiting for ever, and
# their start takes longer than it waits.
GENTLE = {
    "RAY_worker_niceness": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "180",
}
_TRIES = 3  # a node has 30 s to come up
_AGENTS_END = 90.0  # Ray's agents may try for a minute to tell a driver that is gone


def processes(folder: str) -> list[tuple[int, str]]:
    """(pid, title) of the living processes that belong to the runs of a faults folder."""
    return sorted((process.pid, title) for process, title in carrying(FOLDER, folder))


class OwnCluster:
    """The command starts Ray itself, and Ray ends with it.

    Attributes:
        address: for ``resources.address``.
    """

    address = "local"

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def left(self) -> str:
        """Waits until everything has ended after the last command; what has not."""
        wait_for(lambda: not processes(self._folder), _AGENTS_END)
        return "; ".join(f"{pid} {title[:60]}" for pid, title in processes(self._folder))

    def kill_node_of(self, pid: int) -> None:
        raise NotImplementedError("the driver's own node does not die alone")

    def mend(self) -> None:
        """Brings back what ``kill_node_of`` took."""


# Ray's one coordinator of a cluster, which the first run of Ray Train starts for all.
_RAY_S = "_AutoscalingCoordinatorActor"


class JoinedCluster:
    """A cluster of several nodes on this machine, made here; commands join it at its head.

    Only the main thread may make one, or mend it: Ray installs signal handlers then.
    """

    def __init__(self, folder: str, cpus: list[int]) -> None:
        """``cpus``: of each node, the head first."""
        from ray.cluster_utils import Cluster

        os.environ.update(GENTLE)
        self._folder, self._nodes = folder, len(cpus)
        self._cluster = Cluster()
        try:
            # Ray Train's own cleaning asks the dashboard's process.
            self._cluster.add_node(num_cpus=cpus[0], dashboard_port=_free_port())
            for number in cpus[1:]:
                self._cluster.add_node(num_cpus=number)
        except BaseException:
            self.close()
            raise
        self.address = str(self._cluster.address)

    def left(self) -> str:
        """Waits until nothing of a run is on the cluster any longer; what still is."""
        wait_for(lambda: not self._actors() + self._titled(), _AGENTS_END)
        return "; ".join(self._actors() + self._titled())

    def _actors(self) -> list[str]:
        table = self._cluster.global_state.actor_table(None).values()
        return [
            f"actor {one['ActorClassName']} {one['State']}"
            for one in table
            if one["State"] != "DEAD" and one["ActorClassName"] != _RAY_S
        ]

    def _titled(self) -> list[str]:
        # Idle workers are the cluster's: it keeps them for the next to come.
        return [
            f"{pid} {title[:60]}"
            for pid, title in processes(self._folder)
            if not title.startswith(("ray::IDLE", f"ray::{_RAY_S}"))
        ]

    def kill_node_of(self, pid: int) -> None:
        """A node as it goes when its machine does: raylet, agents and workers at once."""
        above = {one.pid for one in psutil.Process(pid).parents()} | {pid}
        for node in list(self._cluster.worker_nodes):
            roots = [one.process.pid for kind in node.all_processes.values() for one in kind]
            if above & set(roots):
                family = [psutil.Process(root) for root in roots if psutil.pid_exists(root)]
                family += [child for one in family for child in one.children(recursive=True)]
                for one in family:
                    _kill(one.pid)
                self._cluster.remove_node(node, allow_graceful=False)
                return
        raise LookupError(f"process {pid} is on the head, or gone")

    def mend(self) -> None:
        for _ in range(_TRIES):
            try:
                while 1 + len(self._cluster.worker_nodes) < self._nodes:
                    self._cluster.add_node(num_cpus=1)
                return
            except Exception as error:  # Ray raises nothing narrower
                told = error
        raise RuntimeError(f"no new node came up: {told}")

    def close(self) -> None:
        self._cluster.shutdown()


Place = OwnCluster | JoinedCluster


@contextmanager
def joined(folder: str, cpus: list[int]) -> Iterator[JoinedCluster]:
    place = JoinedCluster(folder, cpus)
    try:
        yield place
    finally:
        place.close()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
