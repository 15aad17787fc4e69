"""Two runs at once on one cluster know nothing of each other."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from small_runs import Run, both_config, no_shard_stays, shard_actors

from ray_xml.cluster.trainer import train
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet


def config_of(data: DataSet, folder: Path, seed: int) -> RunConfig:
    """One worker on one of the cluster's two CPUs, two shards."""
    config = both_config(data, folder, workers=1, shards=2, epochs=2)
    resources = config.resources.model_copy(update={"cpus_per_worker": 1.0})
    training = config.training.model_copy(update={"seed": seed})
    return config.model_copy(update={"resources": resources, "training": training})


def test_two_runs_at_once(straight: Run, data: DataSet, tmp_path: Path) -> None:
    configs = [config_of(data, tmp_path / str(seed) / "run", seed) for seed in (0, 1)]
    failed: list[BaseException] = []
    most = 0

    def start(config: RunConfig) -> None:
        try:
            train(config)
        except BaseException as error:
            failed.append(error)

    before = set(shard_actors())
    threads = [threading.Thread(target=start, args=(config,)) for config in configs]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(set(shard_actors()) - before))
        threads[0].join(0.2)
        threads[1].join(0.2)
    assert failed == []
    assert most == 4  # they did run at once
    first, second = (RunFolder(config.run) for config in configs)
    for folder in (first, second):
        assert [line["epoch"] for line in folder.lines()] == [1, 2]
    # The run that another one has made alone, and a run of its own.
    expected = straight.folder.step_losses()[: 17 * 2]
    np.testing.assert_allclose(first.step_losses(), expected, rtol=1e-4)
    assert not np.allclose(second.step_losses(), expected, rtol=1e-4)
    assert no_shard_stays(before)
