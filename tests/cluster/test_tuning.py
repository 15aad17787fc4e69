"""A search on a cluster: its trials are whole runs, and those behind are stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import make_config

from ray_xml.cluster.asha import Asha
from ray_xml.cluster.tuning import search
from ray_xml.config import load_config
from ray_xml.errors import ConfigError, ResourceError
from ray_xml.run_config import RunConfig
from ray_xml.search_log import DONE, STOPPED, Point, SearchLog, TrialRecord
from ray_xml.store import DataSet
from ray_xml.tune_folder import TuneFolder


def config_of(data: DataSet, folder: Path, epochs: int, **tune: Any) -> RunConfig:
    config = make_config(
        training={"epochs": epochs, "rate": 0.01},
        encoder={"tokens": "svd"},
        resources={"workers": 1, "label_shards": 1},
        tune={"space": {"training.rate": {"choice": [1e-9, 2e-9]}}, "trials": 2, **tune},
    )
    return config.model_copy(update={"data": str(data.path), "run": str(folder)})


@pytest.fixture(scope="module")
def searched(
    cluster: None, data: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, SearchLog, list[str], str]:
    """A search whose second trial cannot be better than the config as it stands."""
    config = config_of(data, tmp_path_factory.mktemp("search") / "found", epochs=2, concurrent=1)
    said: list[str] = []
    table = search(config, say=said.append)
    return config, SearchLog(Path(config.run)), said, table


Searched = tuple[RunConfig, SearchLog, list[str], str]


def test_the_worse_trial_is_stopped_early(searched: Searched) -> None:
    config, log, said, table = searched
    default, other = log.trials()
    assert (default.status, default.epochs) == (DONE, 2)
    assert (other.status, other.epochs) == (STOPPED, 1)
    assert other.parameters["training.rate"] in (1e-9, 2e-9)
    assert "1 trial at a time × (0.1 CPU for the driver + 1 worker × 1 CPU)" in said[0]
    assert sum("epoch 2/2" in line for line in said) == 1
    assert "(the config as it stands)" in table
    lines = TuneFolder(config.run).trial(0).lines()
    assert [point.value for point in default.points] == [
        line["validation"]["nDCG@5"] for line in lines
    ]


def test_its_trials_shared_what_they_have_in_common(searched: Searched) -> None:
    folder = TuneFolder(searched[0].run)
    kept = [path.name.split("-")[0] for path in (folder.path / "cache").iterdir() if path.is_dir()]
    assert sorted(kept) == ["neighbors", "svd"]
    files = [folder.trial(number).neighbors_file for number in (0, 1)]
    assert files[0].samefile(files[1])


def test_the_best_config_is_a_run_s(searched: Searched, data: DataSet) -> None:
    config = searched[0]
    best = load_config(RunConfig, Path(config.run) / "best.yaml")
    assert best.training.rate == 0.01
    assert best.resolved(data).training.epochs == 2
    assert not (Path(config.run) / ".ray").exists()


def test_a_search_that_is_over_only_tells(searched: Searched) -> None:
    config, _, _, table = searched
    said: list[str] = []
    assert search(config, resume=True, say=said.append) == table
    assert said == []
    with pytest.raises(ConfigError, match="--resume goes on"):
        search(config)


def test_a_search_that_could_stand_still_is_refused(
    cluster: None, data: DataSet, tmp_path: Path
) -> None:
    config = config_of(data, tmp_path / "new", epochs=3, concurrent=2)
    resources = config.resources.model_copy(update={"cpus_per_worker": 1.0})
    with pytest.raises(ResourceError, match=r"2 trials at a time × .* = 2.2 of 2 CPUs"):
        search(config.model_copy(update={"resources": resources}))


def record(number: int, *values: float) -> TrialRecord:
    points = [Point(epoch, v, 1.0, 10.0 * number + epoch) for epoch, v in enumerate(values, 1)]
    return TrialRecord(number, {}, points=points)


class FakeTrial:
    """What the scheduler looks at."""

    def __init__(self, number: int) -> None:
        self.config, self.trial_id = {"number": number}, f"ray-{number}"


def test_the_scheduler_stops_those_behind_but_never_the_default() -> None:
    asha = Asha(grace=1, reduction=2, epochs=4)
    for number, value, expected in ((1, 5.0, "CONTINUE"), (2, 4.0, "STOP"), (0, 1.0, "CONTINUE")):
        asha.on_trial_add(None, FakeTrial(number))
        told = asha.on_trial_result(None, FakeTrial(number), {"epoch": 1, "value": value})
        assert (number, told) == (number, expected)
    assert asha.on_trial_result(None, FakeTrial(1), {"epoch": 4, "value": 0.0}) == "CONTINUE"


def test_the_scheduler_goes_on_as_if_nothing_had_been() -> None:
    asha = Asha(grace=1, reduction=2, epochs=4)
    asha.learn([record(0, 3.0, 3.1), record(1, 5.0, 6.0), record(2, 4.0)])
    asha.on_trial_add(None, FakeTrial(3))
    # Behind trial 1 and the half of those at the first rung.
    assert asha.on_trial_result(None, FakeTrial(3), {"epoch": 1, "value": 3.5}) == "STOP"
    asha.on_trial_add(None, FakeTrial(1))  # was going on
    assert asha.on_trial_result(None, FakeTrial(1), {"epoch": 3, "value": 2.0}) == "CONTINUE"
