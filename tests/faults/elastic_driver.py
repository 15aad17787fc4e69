"""Trains on a cluster of two Ray nodes, one of which goes and comes again, in a process of its own.

    python elastic_driver.py SETTINGS.json

Settings: ``config``, a RunConfig of two workers, of which one will do; ``goes`` and ``comes``, the
epochs that have been told when the second node is killed and when another takes its place.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from ray_xml.cluster.session import set_environment
from ray_xml.cluster.trainer import train
from ray_xml.config import build_config
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder

TIMEOUT = 240.0


def main(settings: dict[str, Any]) -> None:
    set_environment()
    cluster = Cluster()
    failed: list[BaseException] = []
    try:
        cluster.add_node(num_cpus=1)
        node = cluster.add_node(num_cpus=1)
        settings["config"]["resources"]["address"] = cluster.address
        config = build_config(RunConfig, settings["config"], origin="test")
        folder = RunFolder(config.run)

        def work() -> None:
            try:
                train(config)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()

        def wait_for(epochs: int) -> None:
            end = time.monotonic() + TIMEOUT
            while len(folder.lines()) < epochs and thread.is_alive():
                assert time.monotonic() < end, f"epoch {epochs} did not come"
                time.sleep(0.05)

        wait_for(settings["goes"])
        cluster.remove_node(node, allow_graceful=False)
        wait_for(settings["comes"])
        cluster.add_node(num_cpus=1)
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the run did not end"
    finally:
        cluster.shutdown()
    if failed:
        raise failed[0]


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
