"""A run that goes on from where another one is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from made import make_config, train
from safetensors.numpy import load_file

from ray_xml.checkpoint import folder_of
from ray_xml.config import build_config
from ray_xml.errors import CheckpointError
from ray_xml.predictor import Predictor
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_fork import fork
from ray_xml.store import DataSet
from ray_xml.tune_pbt import CHANGEABLE


def config_of(data: DataSet, epochs: int, rate: float = 0.01, dropout: float = 0.2) -> RunConfig:
    return make_config(
        encoder={"dropout": dropout, "dim": 16},
        neighbors={"size": 0},
        training={"epochs": epochs, "rate": rate, "cycle_epochs": 1, "keep_checkpoints": 2},
    ).resolved(data)


def weights(run: RunFolder, epoch: int) -> dict[str, np.ndarray]:
    files = sorted(folder_of(run.checkpoints, epoch).glob("*.safetensors"))
    return {f"{file.stem}/{key}": value for file in files for key, value in load_file(file).items()}


def files(run: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


@pytest.fixture
def parent(data: DataSet, tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "parent")
    train(data, config_of(data, 2), run.path)
    return run


def test_with_the_same_settings_it_is_the_same_run(
    data: DataSet, tmp_path: Path, parent: RunFolder
) -> None:
    child, config = RunFolder(tmp_path / "child"), config_of(data, 4)
    before = files(parent)
    assert fork(parent, child, config) == 2
    train(data, config, child.path)
    assert files(parent) == before
    train(data, config, parent.path)  # goes on by itself, though the child shares its files
    train(data, config, tmp_path / "whole")
    whole = RunFolder(tmp_path / "whole")
    expected = weights(whole, 4)
    assert len(expected) > 15
    for run in (parent, child):
        found = weights(run, 4)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        np.testing.assert_array_equal(run.step_losses(), whole.step_losses())
        assert [line["validation"] for line in run.lines()] == [
            line["validation"] for line in whole.lines()
        ]


def test_other_settings_hold_from_there_on(
    data: DataSet, tmp_path: Path, parent: RunFolder
) -> None:
    child, config = RunFolder(tmp_path / "child"), config_of(data, 3, rate=0.003, dropout=0.4)
    fork(parent, child, config)
    assert child.lines() == parent.lines()
    assert child.begin(config) == 2
    train(data, config, child.path)
    assert [line["rate"] for line in child.lines()] == [0.01, 0.01, 0.003]
    assert child.config() == config
    train(data, config_of(data, 3), parent.path)
    assert child.lines()[2]["loss"] != parent.lines()[2]["loss"]


def test_the_parent_s_best_stays_the_best(data: DataSet, tmp_path: Path) -> None:
    parent, child = RunFolder(tmp_path / "parent"), RunFolder(tmp_path / "child")
    train(data, config_of(data, 4), parent.path)
    spoilt = config_of(data, 6, rate=5.0)  # nothing good comes of it
    fork(parent, child, spoilt)
    train(data, spoilt, child.path)
    assert child.model().name == parent.model().name
    assert weights(child, 4).keys() == weights(parent, 4).keys()


VALUES = {
    "training.rate": 0.02,
    "training.batch_size": 48,
    "encoder.dropout": 0.5,
    "encoder.rate_factor": 0.3,
    "classifier.random_negatives": 80,  # all labels: no shortlists any more
    "classifier.candidates": 60,
    "classifier.sgd_rate": 10.0,
    "proxy.passes": 3,
    "proxy.ridge": 0.01,
    "proxy.rate": 0.01,
    "proxy.epochs": 1,
}


def test_what_may_change_in_a_population_can(
    data: DataSet, tmp_path: Path, parent: RunFolder
) -> None:
    child, config = RunFolder(tmp_path / "child"), config_of(data, 3)
    assert VALUES.keys() == set(CHANGEABLE)
    tree = config.model_dump(mode="json")
    for key, value in VALUES.items():
        section, _, leaf = key.partition(".")
        assert tree[section][leaf] != value
        tree[section][leaf] = value
    changed = build_config(RunConfig, tree, origin="test")
    fork(parent, child, changed)
    train(data, changed, child.path)
    assert child.lines()[2]["loss"] < child.lines()[0]["loss"]
    assert len(child.step_losses()) == 2 * -(-540 // 64) + -(-540 // 48)
    # What a prediction is made of has not changed: the parent's checkpoints predict as they did.
    features = data.split("test").features
    known = Predictor.load(parent.path).predict(features, 5)
    shutil.rmtree(folder_of(child.checkpoints, 3))
    (child.path / "neighbors.safetensors").unlink(missing_ok=True)
    shutil.copyfile(parent.neighbors_file, child.neighbors_file)
    again = Predictor.load(child.path).predict(features, 5)
    np.testing.assert_array_equal(again.labels, known.labels)
    np.testing.assert_array_equal(again.scores, known.scores)


def test_it_is_made_once(data: DataSet, tmp_path: Path, parent: RunFolder) -> None:
    child, config = RunFolder(tmp_path / "child"), config_of(data, 4)
    left = tmp_path / ".child.fork" / "checkpoints" / "epoch-0001"
    left.mkdir(parents=True)  # a killed one's
    (left / "half.safetensors").write_bytes(b"")
    assert fork(parent, child, config) == 2
    assert not (tmp_path / ".child.fork").exists()
    assert not (folder_of(child.checkpoints, 1) / "half.safetensors").exists()
    train(data, config, child.path)
    before = files(child)
    assert fork(parent, child, config) == 4
    assert files(child) == before


def test_a_damaged_checkpoint_is_not_taken_over(
    data: DataSet, tmp_path: Path, parent: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    def spoil(epoch: int) -> None:
        file = next(folder_of(parent.checkpoints, epoch).glob("tokens-*.safetensors"))
        whole = bytearray(file.read_bytes())
        whole[-1] ^= 1
        file.write_bytes(whole)

    spoil(2)
    child, config = RunFolder(tmp_path / "child"), config_of(data, 3)
    assert fork(parent, child, config) == 1
    assert "child goes on from epoch 1 instead" in capfd.readouterr().err
    assert [line["epoch"] for line in child.lines()] == [1]
    train(data, config, child.path)
    assert child.epochs_done() == 3
    spoil(1)
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole \(.*so no other run"):
        fork(parent, RunFolder(tmp_path / "other"), config)
    assert not (tmp_path / "other").exists()
