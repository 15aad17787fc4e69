"""A model out of a run folder: what it holds, and what damage is told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import UNSEEN, dense, make_config, train
from small_sets import assert_same
from trained import trained_run

from ray_xml import checkpoint
from ray_xml.blend import DEFAULT
from ray_xml.errors import CheckpointError
from ray_xml.lexical_file import save_lexical
from ray_xml.model import model_of_checkpoint, model_of_run
from ray_xml.neighbors import Neighbors
from ray_xml.run_data import split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(data, tmp_path_factory.mktemp("runs"), "both")


@pytest.fixture
def copy(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A run to spoil."""
    shutil.copytree(run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def change_manifest(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(checkpoint.sealed({**json.loads(path.read_text()), **changes})))


def test_it_holds_what_the_checkpoint_and_the_data_say(run: RunFolder, data: DataSet) -> None:
    model, folder = model_of_run(run.path), run.model()
    manifest = checkpoint.read_manifest(folder)
    assert model.config == run.config()
    assert (model.epoch, model.num_features, model.num_labels) == (manifest["epoch"], 300, 80)
    assert model.blend.as_dict() == manifest["blend"]
    train_split, (rows, _) = data.split("train"), split_rows(data, model.config)
    counts = dense(train_split.labels.take(rows)).sum(0)
    known = np.flatnonzero(counts)
    assert model.labels.dtype == np.int32
    assert model.labels.tolist() == known.tolist()
    assert not set(known.tolist()) & set(UNSEEN)

    def whole(kind: str, name: str, size: int, axis: int = 0) -> np.ndarray:
        return checkpoint.load_range(folder, kind, name, (0, size), axis=axis)

    np.testing.assert_array_equal(model.table, whole("tokens", "table", 24, 1))
    np.testing.assert_array_equal(model.weight, whole("encoder", "normalised_weight", 24))
    np.testing.assert_array_equal(model.bias, whole("encoder", "bias", 24))
    np.testing.assert_array_equal(model.proxies, whole("proxies", "proxies", 80)[known])
    np.testing.assert_array_equal(model.rows[:, :-1], whole("classifier", "weight", 80)[known])
    np.testing.assert_array_equal(model.rows[:, -1], whole("classifier", "bias", 80)[known])
    np.testing.assert_allclose(np.linalg.norm(model.proxies, axis=1), 1, rtol=1e-5)
    expected = Neighbors.build(
        model.config.neighbors, train_split.features.take(rows), train_split.labels.take(rows)
    )
    assert_same(model.neighbors.documents, expected.documents)
    assert_same(model.neighbors.labels, expected.labels)


def test_without_validation_the_score_is_the_default(data: DataSet, tmp_path: Path) -> None:
    train(data, make_config(training={"validation": 0.0, "epochs": 1}), tmp_path)
    assert model_of_run(tmp_path).blend.as_dict() == DEFAULT.as_dict()
    change_manifest(RunFolder(tmp_path).model(), blend=None)
    assert model_of_run(tmp_path).blend is DEFAULT


def test_a_checkpoint_without_proxies_cannot_predict(copy: RunFolder) -> None:
    folder = copy.model()
    change_manifest(folder, with_proxies=False)
    with pytest.raises(CheckpointError, match=f"{folder}: has no proxies yet, so it cannot"):
        model_of_checkpoint(folder, copy.config(), copy.neighbors_file)


@pytest.mark.parametrize("blend", [{"mean": [0.0]}, {"a": 1}, [1, 2], "x", {"weights": None}])
def test_damaged_score_weights_are_told(copy: RunFolder, blend: Any) -> None:
    folder = copy.model()
    change_manifest(folder, blend=blend)
    with pytest.raises(CheckpointError, match=f"{folder}: damaged score weights"):
        model_of_run(copy.path)


def test_missing_neighbours_are_told(copy: RunFolder) -> None:
    copy.neighbors_file.unlink()
    with pytest.raises(CheckpointError, match=r"neighbors\.safetensors: missing.*train again"):
        model_of_run(copy.path)


def test_damaged_neighbours_are_told(copy: RunFolder) -> None:
    copy.neighbors_file.write_bytes(copy.neighbors_file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"neighbors\.safetensors: damaged .*train again"):
        model_of_run(copy.path)


def test_another_run_s_neighbours_are_told(copy: RunFolder) -> None:
    features = Csr.from_lists([[0], [299]], 300)
    labels = Csr.from_lists([[0], [80]], 81)
    save_lexical(copy.neighbors_file, copy.config().neighbors, features, labels)
    with pytest.raises(CheckpointError, match=r"300 features and 81 labels.*has 300 and 80"):
        model_of_run(copy.path)
