"""Every command as a Ray job on a cluster with a token: done, stopped, failed, and what stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_cluster import JobCluster
from made import make_config, write_xc
from processes import wait_for

from ray_xml.config import dump_config, load_config
from ray_xml.data_url import open_data
from ray_xml.evaluation import evaluate
from ray_xml.predict_parts import PartsFolder
from ray_xml.predictor import Predictor
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.search_log import DONE, SearchLog
from ray_xml.store import DataSet
from ray_xml.tune_folder import TuneFolder


@dataclass(frozen=True)
class Place:
    """The cluster, and a folder that all its nodes see."""

    cluster: JobCluster
    folder: Path

    def url(self, name: str) -> str:
        return (self.folder / name).as_uri()


@pytest.fixture(scope="module")
def place(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("jobs")
    for split in ("train", "test"):
        one = data.split(split)
        write_xc(folder / f"{split}.txt", one.features, one.labels)
    config = make_config(training={"epochs": 2, "batch_size": 32, "cycle_epochs": 1})
    (folder / "config.yaml").write_text(dump_config(config))
    with JobCluster(folder, nodes=2) as cluster:
        yield Place(cluster, folder)


@pytest.fixture(scope="module")
def prepared(place: Place) -> str:
    """A data set at a URL."""
    files = [place.folder / f"{split}.txt" for split in ("train", "test")]
    job = place.cluster.submit("jobs/prepare.py", "xc", *files, place.url("data"))
    assert job.status == 0, job.output
    assert "train: 600 documents, 1,186 label pairs" in job.output
    assert place.cluster.status(job.id) == "SUCCEEDED"
    return place.url("data")


@pytest.fixture(scope="module")
def trained(place: Place, prepared: str) -> str:
    """A run at a URL."""
    job = place.cluster.submit(
        "jobs/train.py", place.folder / "config.yaml", f"data={prepared}", f"run={place.url('run')}"
    )
    assert job.status == 0, job.output
    assert "epoch   2" in job.output
    # Nothing is said of resources: it takes what the two nodes have.
    assert "taking 2 workers, 2 label shards; free on the cluster's 2 nodes: 2 CPUs" in job.output
    return place.url("run")


def test_a_prepared_set_is_whole(place: Place, prepared: str, data: DataSet) -> None:
    assert DataSet.open(place.folder / "data").meta.splits == data.meta.splits
    job = place.cluster.submit(
        "jobs/prepare.py", "xc", place.folder / "train.txt", place.folder / "test.txt", prepared
    )
    assert job.status == 1
    assert "already holds a data set: choose another place, or pass --overwrite" in job.output
    assert place.cluster.status(job.id) == "FAILED"


def test_a_run_is_at_its_url(place: Place, trained: str) -> None:
    stored = RunFolder(place.folder / "run")
    assert stored.epochs_done() == 2
    assert [line["epoch"] for line in stored.lines()] == [1, 2]
    assert stored.config().data == place.url("data")


def test_evaluate(
    place: Place, trained: str, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.cluster.submit("jobs/evaluate.py", trained, "--json")
    assert job.status == 0, job.output
    (line,) = [line for line in job.output.splitlines() if line.startswith("{")]
    monkeypatch.setenv("RAY_XML_CACHE", str(place.folder / "own-cache"))
    predictor = Predictor.load(place.folder / "run")
    expected = evaluate(predictor, open_data(prepared), "test")
    assert json.loads(line) == {key: round(value, 4) for key, value in expected.items()}


def test_predict(place: Place, trained: str, data: DataSet) -> None:
    features = data.split("train").features.take(np.tile(np.arange(600), 4)).packed()
    columns = {
        name: pa.LargeListArray.from_arrays(features.offsets, array)
        for name, array in (("features", features.ids), ("values", features.values))
    }
    pq.write_table(pa.table(columns), place.folder / "new.parquet")
    arguments = (
        "jobs/predict.py", trained, place.url("new.parquet"), "--out", place.url("predicted"),
        "--part-size", 1024,
    )  # fmt: skip
    job = place.cluster.submit(*arguments)
    assert job.status == 0, job.output
    assert "2,400 documents in 3 parts; 2,400 by this command" in job.output
    assert "docs/s" in job.output
    out = place.folder / "predicted"
    table = pa.concat_tables([pq.read_table(one) for one in sorted(out.glob("*.parquet"))])
    expected = Predictor.load(place.folder / "run").predict(features, 5)
    assert table["labels"].to_pylist() == expected.labels.tolist()
    assert table["scores"].to_pylist() == expected.scores.tolist()
    assert PartsFolder(str(out)).manifest()["done"]["documents"] == 2400
    (out / "part-000001.parquet").unlink()
    job = place.cluster.submit(*arguments)
    assert job.status == 0, job.output
    assert "2 of 3 parts are done already" in job.output
    assert "1,024 by this command" in job.output


def test_a_search(place: Place, trained: str) -> None:
    """Each trial's process lies on a node, in a Ray job of its own, with this one's package.

    A run on both nodes comes first: nodes on one machine share the folder of packages, and the
    first process on each node that needs one has Ray unpack it anew, which takes the folder away
    from under a driver.
    """
    space = "tune.space={training.rate: {log_uniform: [0.002, 0.02]}}"
    search = place.folder / "search"
    job = place.cluster.submit(
        "jobs/tune.py", place.folder / "config.yaml", f"data={place.folder / 'data'}",
        f"run={search}", "resources.workers=1", "resources.label_shards=1", "tune.trials=2",
        "tune.scheduler=none", space,
    )  # fmt: skip
    assert job.status == 0, job.output
    assert place.cluster.status(job.id) == "SUCCEEDED"
    assert "trial 1  done" in job.output
    assert "(the config as it stands)" in job.output
    trials = SearchLog(search).trials()
    assert [(one.status, one.epochs) for one in trials] == [(DONE, 2), (DONE, 2)]
    best = load_config(RunConfig, search / "best.yaml")
    assert best.training.rate in {one.parameters["training.rate"] for one in trials}
    for number in (0, 1):
        assert TuneFolder(search).trial(number).model().name.startswith("epoch-")


def test_stopping_a_job_leaves_nothing_behind(place: Place, prepared: str) -> None:
    run = place.folder / "long"
    job = place.cluster.submit(
        "jobs/train.py", place.folder / "config.yaml", f"data={place.folder / 'data'}",
        f"run={run}", "training.epochs=5000", wait=False,
    )  # fmt: skip
    assert job.status == 0, job.output
    assert wait_for(lambda: len(RunFolder(run).lines()) >= 1, 300), place.cluster.ray(
        "job", "logs", job.id
    )
    assert place.cluster.processes("LabelShard", "RayTrainWorker")
    status, output = place.cluster.ray("job", "stop", job.id)
    assert status == 0, output
    assert place.cluster.status(job.id) == "STOPPED"
    status, logs = place.cluster.ray("job", "logs", job.id)
    assert status == 0
    assert "epoch   1  loss" in logs
    words = ("LabelShard", "RayTrain", "TrainController", "jobs/train.py")
    assert wait_for(lambda: not place.cluster.processes(*words), 60), place.cluster.processes()

    def nothing(what: str) -> bool:
        return "No resource in the cluster" in place.cluster.listed(what)

    assert wait_for(lambda: nothing("actors"), 60), place.cluster.listed("actors")
    assert wait_for(lambda: nothing("placement-groups"), 60)
    # What it had stored is whole, and the run can be gone on with.
    done = RunFolder(run).epochs_done()
    assert done >= 1
    job = place.cluster.submit(
        "jobs/train.py", place.folder / "config.yaml", f"data={place.folder / 'data'}",
        f"run={run}", f"training.epochs={done + 1}",
    )  # fmt: skip
    assert job.status == 0, job.output
    assert RunFolder(run).epochs_done() == done + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("jobs/train.py", "{config}", "training.epoch=3"),
            r"error: .*training\.epoch.*did you mean",
        ),
        (("jobs/predict.py", "{nowhere}", "{config}", "--out", "{nowhere}"), "error: .*no run"),
        (("jobs/evaluate.py", "{nowhere}"), "error: .*no run here"),
    ],
)
def test_a_failing_job_says_why(place: Place, arguments: tuple[str, ...], said: str) -> None:
    known = {"config": place.folder / "config.yaml", "nowhere": place.folder / "nowhere"}
    job = place.cluster.submit(*(one.format(**known) for one in arguments))
    assert job.status == 1
    assert place.cluster.status(job.id) == "FAILED"
    status, logs = place.cluster.ray("job", "logs", job.id)
    assert status == 0
    lines = [line for line in logs.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, logs
    assert re.search(said, lines[0]), lines
    assert "Traceback" not in logs


def test_without_the_token_nothing_is_submitted(place: Place) -> None:
    without = JobCluster.__new__(JobCluster)
    without.__dict__.update(place.cluster.__dict__)
    without.environment = {
        k: v for k, v in place.cluster.environment.items() if not k.startswith("RAY_AUTH_TOKEN")
    } | {"RAY_AUTH_TOKEN": "wrong" * 8}
    status, output = without.ray("job", "list")
    assert status != 0
    assert "oken" in output
