"""A trial that is stopped frees all it held: workers, label shards, and what Ray Train took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from made import make_config
from processes import wait_for
from small_runs import shard_actors

from ray_xml.cluster.trial import Trial
from ray_xml.store import DataSet
from ray_xml.tune_folder import TuneFolder


def held() -> dict[str, Any]:
    """What of the cluster is in use, actors and reservations."""
    groups = ray.util.placement_group_table().values()
    return {
        "cpus": ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0),
        "shards": shard_actors(),
        "groups": [one for one in groups if one["state"] != "REMOVED"],
    }


def test_a_trial_that_is_stopped_frees_all_that_it_held(
    cluster: None, data: DataSet, tmp_path: Path
) -> None:
    assert wait_for(lambda: not any(held().values()), 20)
    config = make_config(
        training={"epochs": 2000, "rate": 0.01},
        resources={"workers": 1, "label_shards": 1},
        tune={"space": {"training.rate": {"log_uniform": [0.001, 0.1]}}},
    ).model_copy(update={"data": str(data.path), "run": str(tmp_path)})
    folder = TuneFolder(tmp_path)
    folder.begin(config, resume=False)
    trial = Trial(
        {
            "folder": str(tmp_path), "number": 1, "parameters": {"training.rate": 0.02},
            "cpus_per_worker": 0.9, "after": 0, "until": 2000,
        }
    )  # fmt: skip
    try:
        results = [trial.train(), trial.train()]
        assert [one["epoch"] for one in results] == [1, 2]
        lines = folder.trial(1).lines()
        assert results[1]["value"] == lines[1]["validation"]["nDCG@5"]
        during = held()
        assert during["cpus"] == pytest.approx(0.9)
        assert len(during["shards"]) == len(during["groups"]) == 1
    finally:
        trial.stop()
    assert wait_for(lambda: not any(held().values()), 20), held()
    assert folder.trial(1).epochs_done() >= 2  # what was stored is good
