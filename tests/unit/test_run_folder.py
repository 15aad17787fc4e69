"""The run folder: beginning, going on, and which checkpoint is the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made import make_config

from ray_xml import __version__, checkpoint
from ray_xml.errors import CheckpointError, ConfigError
from ray_xml.run_folder import RunFolder


def store(
    run: RunFolder, epoch: int, *, with_proxies: bool = True, best: int | None = None
) -> None:
    folder = checkpoint.begin(run.checkpoints, epoch)
    checkpoint.save_part(folder, "rows", 0, (0, 1), {"x": torch.zeros(1)})
    manifest = {"with_proxies": with_proxies, "best_epoch": best}
    checkpoint.finish(run.checkpoints, epoch, manifest)


def add(run: RunFolder, epoch: int, steps: int, **told: float) -> None:
    run.save_losses(epoch, np.full(steps, epoch, np.float32))
    run.append({"epoch": epoch, **told})


def test_a_new_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    config = make_config(training={"rate": 2e-6})
    assert run.begin(config) == 0
    assert run.config() == config
    assert (run.lines(), len(run.step_losses()), run.epochs_done()) == ([], 0, 0)
    assert run.begin(config) == 0  # nothing has happened yet


def test_going_on(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(make_config())
    for epoch in (1, 2):
        store(run, epoch)
        add(run, epoch, 3, loss=0.5)
    more = make_config(training={"epochs": 9})
    assert run.begin(more) == 2
    assert run.config() == more
    assert [line["epoch"] for line in run.lines()] == [1, 2]
    assert run.step_losses().tolist() == [1, 1, 1, 2, 2, 2]


def test_what_is_in_no_checkpoint_is_forgotten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(make_config())
    store(run, 1)
    for epoch in (1, 2):
        add(run, epoch, 2)
    with open(run.metrics_file, "a") as file:
        file.write('{"epoch": 3, "lo')  # a line that a crash cut
    assert [line["epoch"] for line in run.lines()] == [1, 2]
    assert run.begin(make_config()) == 1
    assert [line["epoch"] for line in run.lines()] == [1]
    assert run.step_losses().tolist() == [1, 1]
    run.save_losses(2, np.full(2, 7, np.float32))
    run.append({"epoch": 2})
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == run.lines()
    assert run.step_losses().tolist() == [1, 1, 7, 7]


def test_another_config_is_refused_with_the_differences(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(make_config())
    changed = make_config(encoder={"dim": 48}, training={"rate": 0.5, "epochs": 7})
    with pytest.raises(ConfigError, match="other settings") as caught:
        run.begin(changed)
    message = str(caught.value)
    assert "encoder.dim: 24 → 48" in message
    assert "training.rate: 0.005 → 0.5" in message
    assert "epochs" not in message.replace("cycle_epochs", "")
    assert run.config() == make_config()


def test_another_config_of_another_version_names_both(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(make_config())
    store(run, 1)
    manifest = run.checkpoints / "epoch-0001" / "manifest.json"
    tree = {**json.loads(manifest.read_text()), "ray_xml": "0.0.1"}
    manifest.write_text(json.dumps(checkpoint.sealed(tree)))
    both = rf"; it was made by ray_xml 0\.0\.1, this is {__version__}"
    with pytest.raises(ConfigError, match=rf"encoder\.dim: 24 → 48\){both}; set them back"):
        run.begin(make_config(encoder={"dim": 48}))
    assert run.begin(make_config()) == 1  # the same settings mean the same
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("training:\n", "training:\n  beta: 0.5\n"))
    with pytest.raises(ConfigError, match=rf"unknown key 'training\.beta'.*{both}"):
        run.config()


def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        RunFolder(tmp_path).begin(make_config())
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").begin(make_config())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    assert RunFolder(tmp_path / "empty").begin(make_config()) == 0


def test_no_run_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run here.*ray-xml train"):
        RunFolder(tmp_path / "none").config()
    with pytest.raises(CheckpointError, match="no run here"):
        RunFolder(tmp_path / "none").model()


def test_the_model_is_the_best_checkpoint_that_can_predict(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(make_config())
    store(run, 1, with_proxies=False)
    with pytest.raises(CheckpointError, match="no checkpoint that can predict"):
        run.model()
    store(run, 2, best=2)
    assert run.model().name == "epoch-0002"
    store(run, 3, with_proxies=False, best=2)
    assert run.model().name == "epoch-0002"
    store(run, 4, best=2)
    assert run.model().name == "epoch-0002"
    store(run, 6, best=6)
    assert run.model().name == "epoch-0006"


@pytest.mark.parametrize("what", ["config", "model", "begin"])
def test_a_run_of_an_older_version_says_so(tmp_path: Path, what: str) -> None:
    """Its config has keys that are gone; that is not what a user should hear of."""
    run = RunFolder(tmp_path)
    run.begin(make_config())
    store(run, 2, best=2)
    manifest = run.checkpoints / "epoch-0002" / "manifest.json"
    tree = json.loads(manifest.read_text())
    old = {key: value for key, value in tree.items() if key != "seal"}
    manifest.write_text(json.dumps({**old, "format_version": 1, "beta": 0.5}))
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("training:\n", "training:\n  beta: 0.5\n"))
    call = {"config": run.config, "model": run.model, "begin": lambda: run.begin(make_config())}
    with pytest.raises(CheckpointError, match=r"manifest\.json: format version 1, this .* reads 3"):
        call[what]()
    # A wrong key in a run of this version is a wrong key.
    manifest.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"unknown key 'training\.beta'"):
        call[what]()


def test_a_damaged_model_is_an_error(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.begin(make_config())
    store(run, 2, best=2)
    (run.checkpoints / "epoch-0002" / "rows-00000.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"rows-00000.*missing"):
        run.model()
