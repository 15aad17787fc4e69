"""Trains on a cluster of several Ray nodes on this machine, in a process of its own.

    python nodes_driver.py SETTINGS.json

The tests' own process is connected to another Ray. Settings: ``config``, a RunConfig, and
``cpus``, those of each node, the head first. The last line on standard output is a JSON object:

    head      id of the head node
    nodes     ids of all nodes
    shards, workers   the node id of each label shard and Train worker
    maps      node id → Arrow files that its shards and workers had mapped
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from ray_xml.cluster.session import set_environment
from ray_xml.cluster.trainer import train
from ray_xml.config import build_config
from ray_xml.run_config import RunConfig


def mapped(pid: int) -> set[str]:
    """Arrow files that a process has mapped; none if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {line.split()[-1] for line in lines if line.endswith(".arrow")}


def actors(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    """Actors of a class that were ever started on the cluster, the dead too."""
    known = cluster.global_state.actor_table(None).values()
    return [actor for actor in known if actor["ActorClassName"] == kind]


@contextmanager
def watching_maps(cluster: Cluster, found: dict[str, set[str]]) -> Iterator[None]:
    """Notes, while the block runs, what shards and workers have mapped, by node id."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for actor in actors(cluster, "LabelShard") + actors(cluster, "RayTrainWorker"):
                if actor["Pid"]:
                    node = actor["Address"]["NodeID"]
                    found.setdefault(node, set()).update(mapped(actor["Pid"]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main(settings: dict[str, Any]) -> dict[str, Any]:
    set_environment()
    cluster = Cluster()
    maps: dict[str, set[str]] = {}
    try:
        for number, cpus in enumerate(settings["cpus"]):
            head = {"include_dashboard": False} if number == 0 else {}
            cluster.add_node(num_cpus=cpus, **head)
        settings["config"]["resources"]["address"] = cluster.address
        with watching_maps(cluster, maps):
            train(build_config(RunConfig, settings["config"], origin="test"))
        return {
            "head": cluster.head_node.node_id,
            "nodes": [node["NodeID"] for node in cluster.global_state.node_table()],
            "shards": [one["Address"]["NodeID"] for one in actors(cluster, "LabelShard")],
            "workers": [one["Address"]["NodeID"] for one in actors(cluster, "RayTrainWorker")],
            "maps": {node: sorted(files) for node, files in maps.items()},
        }
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    print("\n" + json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
