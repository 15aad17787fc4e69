"""What a run refuses, and how a failed one is told. No process is started for any of it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import ray
import ray.train
from processes import ray_xml
from small_runs import both_config

from ray_xml.cluster import placement, session, worker_group
from ray_xml.cluster.trainer import train
from ray_xml.config import dump_config, load_config
from ray_xml.errors import ConfigError, DataSetError, LostError, RayXmlError, ResourceError
from ray_xml.run_config import ResourcesConfig, RunConfig
from ray_xml.store import DataSet

EURLEX = Path(__file__).parents[2] / "configs" / "eurlex-4k.yaml"


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches Ray fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started or asked")

    for name in ("init", "remote", "get", "shutdown"):
        monkeypatch.setattr(ray, name, refuse)
    monkeypatch.setattr(worker_group, "TorchTrainer", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refused(kind: type[RayXmlError], *overrides: str, config: Path) -> str:
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        train(load_config(RunConfig, config, overrides))
    assert time.monotonic() - began < 2
    return str(caught.value)


@pytest.fixture
def config(data: DataSet, tmp_path: Path) -> Path:
    """A config file that would do."""
    made = both_config(data, tmp_path / "run", workers=1, shards=1, epochs=2)
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(made))
    return file


@pytest.mark.parametrize("key", ["data", "run"])
def test_a_folder_that_is_not_named(config: Path, key: str) -> None:
    assert f"{key} is not set; add {key}=FOLDER" in refused(ConfigError, f"{key}=''", config=config)


def test_a_missing_data_set_says_how_to_make_one(config: Path, tmp_path: Path) -> None:
    said = refused(DataSetError, f"data={tmp_path}/nowhere", config=config)
    assert f"there is no data-set folder {tmp_path}/nowhere" in said
    assert "ray-xml prepare xc TRAIN TEST OUT" in said
    assert not (tmp_path / "run").exists()


def test_a_damaged_data_set(config: Path, data: DataSet, tmp_path: Path) -> None:
    shutil.copytree(data.path, tmp_path / "data")
    size = (tmp_path / "data" / "train.arrow").stat().st_size
    (tmp_path / "data" / "train.arrow").write_bytes(bytes(size))
    said = refused(DataSetError, f"data={tmp_path}/data", config=config)
    assert "train.arrow is damaged" in said
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_names_the_nearest(config: Path) -> None:
    said = refused(ConfigError, "training.epoch=3", config=config)
    assert "unknown key 'training.epoch'; did you mean 'training.epochs'?" in said


def test_a_shortlist_longer_than_the_labels(config: Path) -> None:
    said = refused(ConfigError, "shortlist.size=81", config=config)
    assert "shortlist.size=81 is more than the data set's 80 labels" in said


def test_more_workers_than_cpus(config: Path, tmp_path: Path) -> None:
    have = os.cpu_count() or 1
    for overrides, wanted in (
        (["resources.workers=24", "resources.cpus_per_worker=1000"], 24000),
        ([f"resources.workers={have + 1}"], have + 1),
    ):
        said = refused(ResourceError, *overrides, config=config)
        assert f"need {wanted} CPUs, but this machine has {have};" in said
    assert not (tmp_path / "run").exists()


def test_a_published_set_s_config_on_other_data(data: DataSet, tmp_path: Path) -> None:
    said = refused(DataSetError, f"data={data.path}", f"run={tmp_path}/run", config=EURLEX)
    assert "300 features, but the config is for EURLex-4K with 5,000" in said
    assert "configs/default.yaml" in said


def test_a_run_of_another_config(config: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(config, tmp_path / "run" / "config.yaml")
    said = refused(ConfigError, "training.rate=0.5", "encoder.dim=16", config=config)
    assert f"{tmp_path}/run holds a run with other settings" in said
    for change in ("encoder.dim: 24 → 16", "training.rate: 0.005 → 0.5"):
        assert change in said


def test_a_folder_that_holds_something_else(config: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    assert "is not empty and holds no run" in refused(ConfigError, config=config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_the_command_line_says_it_in_one_line(config: Path, tmp_path: Path) -> None:
    status, out, err = ray_xml("train", "config.yaml", "data=nowhere", folder=tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith("error: there is no data-set folder ")
    assert err.count("\n") == 1


# ---- a cluster that is too small ----


def shares(
    monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float], **keys: object
) -> session.Shares:
    alive = [
        {
            "Alive": True, "Resources": node, "NodeID": f"{number:056x}",
            "NodeManagerHostname": f"host-{number}", "NodeManagerAddress": f"10.0.0.{number}",
        }
        for number, node in enumerate(nodes)
    ]  # fmt: skip
    gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [*alive, gone])
    resources = ResourcesConfig.model_validate(keys)
    with session.session(resources) as where:
        return session.share_out(resources, placement.cluster_nodes(), where)


@pytest.mark.parametrize(
    ("cpus", "keys", "worker", "shard"),
    [
        ([8], {"workers": 3, "label_shards": 2}, 2, 4),
        ([8], {"workers": 3, "label_shards": 9, "cpus_per_worker": 0.5}, 0.5, 1),
        ([1], {"workers": 10, "label_shards": 1, "cpus_per_worker": 0.1}, 0.1, 1),
        # A process lies on one node, so a mean over the cluster would never be placed.
        ([16, 16, 16, 16], {"workers": 3, "label_shards": 4}, 16, 16),
        ([16, 16, 16, 16], {"workers": 6, "label_shards": 6}, 8, 8),
        ([32, 4, 4], {"workers": 3, "label_shards": 1}, 10, 32),
        ([32, 4, 4], {"workers": 3, "label_shards": 9}, 10, 4),
        ([16, 16, 16], {"workers": 3, "label_shards": 3, "placement": "pack"}, 16, 5),
        ([0, 4], {"workers": 1, "label_shards": 1}, 4, 4),  # a head without CPUs
    ],
)
def test_a_joined_cluster_is_shared_out(
    monkeypatch: pytest.MonkeyPatch,
    cpus: list[float],
    keys: dict[str, object],
    worker: float,
    shard: int,
) -> None:
    found = shares(monkeypatch, *({"CPU": one} for one in cpus), **keys)
    assert found == session.Shares(worker, max(1, int(worker)), shard)


def test_a_joined_cluster_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match=r"need 48 CPUs, but the cluster has 52 on 4 nodes"):
        shares(monkeypatch, *[{"CPU": 13.0}] * 4, workers=6, cpus_per_worker=8)
    with pytest.raises(ResourceError, match=r"asks for 2 GPUs .* but the cluster has 1"):
        shares(
            monkeypatch, {"CPU": 8.0, "GPU": 1.0}, workers=2, label_shards=2,
            gpus_per_worker=0.75, gpus_per_shard=0.25,
        )  # fmt: skip


def test_gpus_that_suffice_in_sum_but_not_on_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would wait for ever for a place for such a process."""
    nodes = [{"CPU": 8.0, "GPU": 1.0}] * 2
    keys = {"workers": 1, "label_shards": 2, "gpus_per_worker": 1.0, "gpus_per_shard": 0.5}
    with pytest.raises(ResourceError, match=r"room for 0 of the 1 workers .*placement=pack"):
        shares(monkeypatch, *nodes, **keys)
    assert shares(monkeypatch, *nodes, **keys, placement="pack").shard_threads == 4
    with pytest.raises(ResourceError, match=r"label_shards=1 with 2 GPU each do not fit"):
        shares(monkeypatch, *nodes, workers=1, label_shards=1, gpus_per_shard=2.0)


# ---- how a failed run is told ----


def test_a_worker_s_own_error_is_told_as_itself() -> None:
    own = ConfigError("encoder.tokens: no")
    lost = LostError("worker 0 failed: RuntimeError: [gloo] Connection closed by peer")
    error = ray.train.WorkerGroupError("both", {0: lost, 1: own})
    assert worker_group.explain(error) is own


def test_a_worker_that_died_is_told_with_ray_s_words() -> None:
    lost = LostError("worker 0 failed: RuntimeError: [gloo] Connection closed by peer")
    error = ray.train.WorkerGroupError(
        "worker 1 was killed", {0: lost, 1: RuntimeError("worker process has died")}
    )
    told = worker_group.explain(error)
    assert isinstance(told, LostError)
    assert "worker 1 was killed" in str(told)


def test_a_group_that_never_started_is_told_with_ray_s_words() -> None:
    told = worker_group.explain(ray.train.ControllerError(RuntimeError("no such module")))
    assert isinstance(told, LostError)
    assert "no such module" in str(told)
