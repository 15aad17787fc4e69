"""A run on three Ray nodes: who lies where, which data they read, and the same model as on one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_runs import assert_same_checkpoint, both_config, start

from ray_xml.cluster.data_places import local_data
from ray_xml.cluster.trainer import train
from ray_xml.config import build_config
from ray_xml.data_copy import copy_of, open_copy
from ray_xml.errors import DataSetError, TrainingError
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Spread:
    """A finished run, what ``nodes_driver`` told of it, and the cache that nodes copied into."""

    folder: RunFolder
    head: str
    nodes: list[str]
    shards: list[str]
    workers: list[str]
    maps: dict[str, list[str]]
    cache: Path


@pytest.fixture(scope="module")
def spread(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Spread:
    """2 workers and 3 shards on 3 nodes with a CPU each, every node with data of its own."""
    folder = tmp_path_factory.mktemp("three")
    config = both_config(data, folder / "run", workers=2, shards=3, epochs=2)
    config = with_resources(config, data="copy", data_cache=str(folder / "cache" / "{node}"))
    tree = config.model_dump(mode="json")
    (folder / "settings.json").write_text(json.dumps({"config": tree, "cpus": [1, 1, 1]}))
    done = subprocess.run(
        [sys.executable, str(HERE / "nodes_driver.py"), str(folder / "settings.json")],
        capture_output=True,
        text=True,
        timeout=500,
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return Spread(RunFolder(folder / "run"), cache=folder / "cache", **told)


def test_label_shards_lie_evenly_on_all_nodes(spread: Spread) -> None:
    assert len(spread.nodes) == 3
    assert sorted(spread.shards) == sorted(spread.nodes)


def test_workers_lie_on_different_nodes(spread: Spread) -> None:
    assert set(Counter(spread.workers).values()) == {1}
    assert len(spread.workers) == 2
    assert set(spread.workers) < set(spread.nodes)


def test_the_model_is_the_one_that_a_single_node_makes(
    cluster: None, spread: Spread, data: DataSet, tmp_path: Path
) -> None:
    config = both_config(data, tmp_path / "run", workers=2, shards=3, epochs=2)
    config = with_resources(config, storage=(tmp_path / "bucket").as_uri())
    alone = start(config)
    assert_same_checkpoint(spread.folder, alone.folder, 2)
    # Where the data lay is no part of the run: it can be gone on with anywhere.
    assert spread.folder.config().identity() == alone.folder.config().identity()
    assert spread.folder.config().data == str(data.path)
    assert spread.folder.config().resources.data_checksum is None
    # On a machine that has nothing of the run, its storage has.
    shutil.rmtree(config.run)
    again = train(config)
    assert (again.epochs, again.trained, again.lines) == (2, 0, alone.outcome.lines)
    assert_same_checkpoint(spread.folder, RunFolder(config.run), 2)


def test_each_node_reads_its_own_copy(spread: Spread, data: DataSet) -> None:
    others = set(spread.nodes) - {spread.head}
    # The driver's node has the original already.
    assert {path.name for path in spread.cache.iterdir()} == others
    for node in others:
        copy = open_copy(spread.cache / node, data.meta.checksum)
        assert copy is not None
        copy.verify()
    for node, files in spread.maps.items():
        own = data.path
        if node in others:
            own = copy_of(spread.cache / node, data.meta.checksum)
        assert set(files) <= {str(own / "train.arrow")}
    # Workers keep the file mapped for the whole run.
    assert all(spread.maps[node] for node in spread.workers)


def with_resources(config: RunConfig, **keys: object) -> RunConfig:
    return config.model_copy(update={"resources": config.resources.model_copy(update=keys)})


# ---- what a node says that does not see what it should ----


def config_for(folder: str, run: str = "", **resources: object) -> RunConfig:
    tree = {"data": folder, "run": run, "resources": resources}
    return build_config(RunConfig, tree, origin="test")


@pytest.mark.usefixtures("cluster")
def test_a_node_without_the_shared_folder(data: DataSet, tmp_path: Path) -> None:
    config = config_for(f"{tmp_path}/nowhere", data_checksum=data.meta.checksum)
    said = r"node \S+ \([\d.]+\): there is no data-set folder .*nowhere.*resources\.data=copy"
    with pytest.raises(DataSetError, match=said):
        local_data(config)


@pytest.mark.usefixtures("cluster")
def test_a_node_with_other_data_under_the_same_path(data: DataSet) -> None:
    config = config_for(str(data.path), data_checksum="0123456789abcdef")
    mine = data.meta.checksum[:12]
    said = rf"node \S+ .*{data.path} holds another data set \(checksum {mine}\).*\(0123456789ab\)"
    with pytest.raises(DataSetError, match=said):
        local_data(config)


@pytest.mark.usefixtures("cluster")
def test_a_node_that_came_after_the_copies(data: DataSet, tmp_path: Path) -> None:
    config = config_for(
        f"{tmp_path}/nowhere", data="copy", data_cache=str(tmp_path), data_checksum="0123"
    )
    with pytest.raises(DataSetError, match=r"node .*Nor is there a copy in .*start the run again"):
        local_data(config)


@pytest.mark.usefixtures("cluster")
def test_a_node_that_does_not_see_the_run_folder(data: DataSet, tmp_path: Path) -> None:
    config = config_for(str(data.path), run=str(tmp_path))
    with pytest.raises(TrainingError, match=r"node .* does not see the run folder .*share"):
        local_data(config)
