"""Trains on a cluster of several Ray nodes on this machine, in a process of its own.

    python nodes_driver.py SETTINGS.json

The tests' own process is connected to another Ray, and Ray's fake nodes set signal handlers.
Settings: ``config`` (a RunConfig), ``cpus`` (of each node, the head first), ``gone`` (a folder that
is moved away once label shards are up). The last line on standard output is a JSON object: ``nodes``,
``shards`` and ``workers`` with the node ids that they lay on, ``maps`` with the data files that
workers had mapped by node id, ``error`` with what training raised.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from ray_xml.cluster.session import set_environment
from ray_xml.cluster.trainer import train
from ray_xml.config import build_config
from ray_xml.errors import RayXmlError
from ray_xml.run_config import RunConfig


def actors() -> list[dict[str, Any]]:
    """All that were ever started on the cluster, the dead too."""
    return list(ray._private.state.state.actor_table(None).values())


@contextmanager
def watching_maps(found: dict[str, set[str]]) -> Iterator[None]:
    """Notes, while the block runs, which Arrow files the workers and shards have mapped."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            if not ray.is_initialized():
                continue
            for actor in actors():
                if actor["ActorClassName"] not in ("RayTrainWorker", "LabelShard"):
                    continue
                try:
                    maps = psutil.Process(actor["Pid"]).memory_maps()
                except (psutil.Error, OSError, ValueError):
                    continue
                files = {one.path for one in maps if one.path.endswith(".arrow")}
                found.setdefault(actor["Address"]["NodeID"], set()).update(files)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def main(settings: dict[str, Any]) -> dict[str, Any]:
    set_environment()
    cluster = Cluster()
    told: dict[str, Any] = {"error": None}
    maps: dict[str, set[str]] = {}
    try:
        for number, cpus in enumerate(settings["cpus"]):
            cluster.add_node(num_cpus=cpus, include_dashboard=False if number == 0 else None)
        tree = settings["config"]
        tree["resources"]["address"] = cluster.address
        config = build_config(RunConfig, tree, origin="test")
        try:
            with watching_maps(maps):
                train(config)
        except RayXmlError as error:
            told["error"] = f"{type(error).__name__}: {error}"
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        told["nodes"] = {
            one["NodeID"]: one["Resources"].get("CPU", 0) for one in ray.nodes() if one["Alive"]
        }
        for key, name in (("shards", "LabelShard"), ("workers", "RayTrainWorker")):
            told[key] = [a["Address"]["NodeID"] for a in actors() if a["ActorClassName"] == name]
        told["maps"] = {node: sorted(files) for node, files in maps.items()}
        return told
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    print("\n" + json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
