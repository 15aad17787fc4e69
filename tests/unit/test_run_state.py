"""What goes into a checkpoint comes back: weights, moments, steps, the best epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made import make_config, make_training, proxies_of

from ray_xml import __version__, checkpoint
from ray_xml.blend import DEFAULT
from ray_xml.errors import CheckpointError
from ray_xml.refresh import Validation
from ray_xml.run_state import RunState, check_data_set, load_state, save_state
from ray_xml.store import DataSet
from ray_xml.training import Training

LINE = {"epoch": 1, "loss": 0.25}


def trained(data: DataSet, folder: Path, **training: int) -> Training:
    """A training whose weights, moments and step counts have all moved."""
    made = make_training(data, make_config(training=training), folder)
    made._refresh()
    made._train_epoch(0)
    made.state.epoch = 1
    return made


def save(made: Training, root: Path, *, with_proxies: bool = True) -> dict:
    ranges = made.ranges if with_proxies else None
    save_state(
        root,
        made.state,
        made.encoder,
        made.classifier,
        ranges,
        made.exchange,
        made.data,
        made.config,
        LINE | {"epoch": made.state.epoch},
    )
    return checkpoint.read_manifest(checkpoint.folder_of(root, made.state.epoch))


def held(made: Training) -> dict[str, torch.Tensor]:
    encoder, classifier = made.encoder, made.classifier
    found = {"power": encoder.power}
    for name, adam in {
        "table": encoder.table_adam,
        "weight": encoder.weight_adam,
        "bias": encoder.bias_adam,
        "rows": classifier.weight_adam,
        "row biases": classifier.bias_adam,
    }.items():
        found |= {
            name: adam.table,
            f"{name} first": adam.first,
            f"{name} second": adam.second,
            f"{name} steps": adam.steps,
        }
    return found


def test_everything_comes_back(data: DataSet, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run")
    made.state.best_epoch, made.state.best_value = 1, 61.25
    save(made, tmp_path / "checkpoints")
    fresh = make_training(data, make_config(), tmp_path / "other")
    before = {name: value.clone() for name, value in held(fresh).items()}
    state = load_state(tmp_path / "checkpoints", fresh.encoder, fresh.classifier, data)
    assert (state.epoch, state.best_epoch, state.best_value, state.stored) == (1, 1, 61.25, True)
    for name, value in held(made).items():
        assert torch.equal(held(fresh)[name], value), name
        if name != "power":
            assert not torch.equal(before[name], value), name
    # The optimizers still move the very tensors that the encoder computes with.
    assert fresh.encoder.weight_adam.table.data_ptr() == fresh.encoder.weight.data_ptr()
    assert fresh.encoder.weight.requires_grad


def test_the_manifest_tells_what_prediction_needs(data: DataSet, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run")
    made.state.validation = Validation(DEFAULT, {"P@1": 50.0}, 80.0, 85.0)
    manifest = save(made, tmp_path)
    assert manifest["data_set"] == {"name": "made", "checksum": data.meta.checksum}
    assert (manifest["num_features"], manifest["num_labels"], manifest["dim"]) == (300, 80, 24)
    assert manifest["validation"] == {"P@1": 50.0}
    assert manifest["line"] == LINE | {"epoch": manifest["epoch"]}
    assert manifest["ray_xml"] == __version__
    assert manifest["blend"] == DEFAULT.as_dict()
    assert manifest["with_proxies"]
    assert manifest["best_value"] is None  # minus infinity is no JSON
    assert manifest["adam_steps"]["tokens.table"] == 9  # ⌈540 / 64⌉
    folder = checkpoint.folder_of(tmp_path, 1)
    normalised = checkpoint.load_range(folder, "encoder", "normalised_weight", (0, 24))
    np.testing.assert_array_equal(normalised, made.encoder.normalised_weight().detach().numpy())
    proxies = checkpoint.load_range(folder, "proxies", "proxies", (0, 80))
    np.testing.assert_array_equal(proxies, proxies_of(made.ranges, 80))


def test_without_ranges_there_are_no_proxies(data: DataSet, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run")
    manifest = save(made, tmp_path, with_proxies=False)
    assert not manifest["with_proxies"]
    assert manifest["blend"] is None
    assert not list(checkpoint.folder_of(tmp_path, 1).glob("proxies-*"))


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_and_the_best_stay(data: DataSet, tmp_path: Path, keep: int) -> None:
    made = trained(data, tmp_path / "run", keep_checkpoints=keep)
    for epoch, best in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 3)]:
        made.state.epoch, made.state.best_epoch = epoch, best
        save(made, tmp_path)
        newest = range(max(1, epoch - keep + 1), epoch + 1)
        assert checkpoint.epochs_in(tmp_path) == sorted({best, *newest})


def test_before_any_validation_the_newest_stays(data: DataSet, tmp_path: Path) -> None:
    made = trained(data, tmp_path / "run")
    for epoch in (1, 2):
        made.state.epoch = epoch
        assert save(made, tmp_path)["best_epoch"] is None
    assert checkpoint.epochs_in(tmp_path) == [2]


def test_another_width_is_refused(data: DataSet, tmp_path: Path) -> None:
    save(trained(data, tmp_path / "run"), tmp_path)
    for dim in (20, 30):
        fresh = make_training(data, make_config(encoder={"dim": dim}), tmp_path / str(dim))
        with pytest.raises(CheckpointError, match=str(checkpoint.folder_of(tmp_path, 1))):
            load_state(tmp_path, fresh.encoder, fresh.classifier, data)


def test_damage_is_refused(data: DataSet, tmp_path: Path) -> None:
    save(trained(data, tmp_path / "run"), tmp_path)
    fresh = make_training(data, make_config(), tmp_path / "other")
    part = checkpoint.folder_of(tmp_path, 1) / "optimizer-classifier-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="optimizer-classifier-00000"):
        load_state(tmp_path, fresh.encoder, fresh.classifier, data)


def test_another_data_set_is_refused(data: DataSet, tmp_path: Path) -> None:
    save(trained(data, tmp_path / "run"), tmp_path)
    folder = checkpoint.folder_of(tmp_path, 1)
    manifest = checkpoint.read_manifest(folder)
    check_data_set(folder, manifest, data)
    manifest["data_set"]["checksum"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(checkpoint.sealed(manifest)))
    fresh = make_training(data, make_config(), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"000000000000.*give the data set"):
        load_state(tmp_path, fresh.encoder, fresh.classifier, data)


def test_a_new_state_has_nothing_done() -> None:
    state = RunState(epoch=0)
    assert (state.best_epoch, state.stored, state.validation) == (None, False, None)
    assert state.best_value < 0.0
