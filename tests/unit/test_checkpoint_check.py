"""Damage of every kind is found and named, and the last checkpoint without any is used."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import small_disk
from made import make_config, make_training, train
from test_training import assert_same_tensors, tensors

from ray_xml import checkpoint, run_folder
from ray_xml.checkpoint_check import newest_good, set_aside, verify
from ray_xml.errors import CheckpointError, ConfigError, DiskError, VersionError
from ray_xml.model import model_of_run
from ray_xml.predictor import Predictor
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

PART, MOMENTS = "rows-00000.safetensors", "optimizer-rows-00000.safetensors"
Capture = pytest.CaptureFixture[str]


def store(root: Path, epoch: int, **told: object) -> Path:
    folder = checkpoint.begin(root, epoch)
    values = torch.arange(12.0) + epoch
    checkpoint.save_part(folder, "rows", 0, (0, 12), {"weight": values})
    checkpoint.save_part(folder, "optimizer-rows", 0, (0, 12), {"first": -values})
    manifest = {"with_proxies": True, "best_epoch": epoch, "blend": {"weights": [0.25]}, **told}
    return checkpoint.finish(root, epoch, manifest)


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 4
    path.write_bytes(raw)


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    assert change(before) != before
    path.write_text(change(before))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut part": (lambda f: os.truncate(f / PART, 40), rf"{PART}: 40 bytes, the manifest says \d+"),
    "emptied part": (lambda f: (f / PART).write_bytes(b""), rf"{PART}: 0 bytes"),
    "longer part": (lambda f: os.truncate(f / PART, 4096), rf"{PART}: 4096 bytes"),
    "bit of the data": (lambda f: flip(f / PART, -5), rf"{PART}: its bytes are not .*sha256"),
    "bit of the header": (lambda f: flip(f / PART, 20), rf"{PART}: its bytes are not"),
    "bit of the moments": (lambda f: flip(f / MOMENTS, -1), rf"{MOMENTS}: its bytes are not"),
    "missing part": (lambda f: (f / PART).unlink(), rf"{PART}: missing"),
    "cut manifest": (
        lambda f: rewrite(f / "manifest.json", lambda text: text[:-9]), r"manifest\.json: damaged"
    ),
    "emptied manifest": (
        lambda f: (f / "manifest.json").write_bytes(b""), r"manifest\.json: damaged"
    ),
    "no JSON": (
        lambda f: (f / "manifest.json").write_bytes(b"\0\xff" * 50), r"manifest\.json: damaged"
    ),
    "bit of the manifest": (
        lambda f: rewrite(f / "manifest.json", lambda text: text.replace("0.25", "0.24")),
        r"manifest\.json: damaged \(its text is not the one written",
    ),
    "missing manifest": (lambda f: (f / "manifest.json").unlink(), r"no manifest\.json"),
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", DAMAGE)


def spoil(folder: Path, kind: str) -> str:
    """Does a damage; returns the pattern that tells of it."""
    work, said = DAMAGE[kind]
    work(folder)
    return said


def change_version(folder: Path) -> None:
    path = folder / "manifest.json"
    changed = json.loads(path.read_text()) | {"format_version": checkpoint.FORMAT_VERSION + 1}
    path.write_text(json.dumps(checkpoint.sealed(changed)))


def test_a_whole_checkpoint_is_good(tmp_path: Path) -> None:
    assert verify(store(tmp_path, 1)) == checkpoint.read_manifest(tmp_path / "epoch-0001")


@KINDS
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    folder = store(tmp_path, 1)
    said = spoil(folder, kind)
    with pytest.raises(CheckpointError, match=said):
        verify(folder)
    if kind == "bit of the moments":
        verify(folder, weights_only=True)
    else:
        with pytest.raises(CheckpointError, match=said):
            verify(folder, weights_only=True)


def test_every_bit_of_a_part_counts(tmp_path: Path) -> None:
    folder = store(tmp_path, 1)
    for place in range((folder / PART).stat().st_size):
        flip(folder / PART, place)
        with pytest.raises(CheckpointError, match=PART):
            verify(folder)
        flip(folder / PART, place)
    verify(folder)


def test_the_newest_good_one_is_found(tmp_path: Path) -> None:
    assert newest_good(tmp_path) == (0, [])
    folders = [store(tmp_path, epoch) for epoch in (1, 2, 3)]
    assert newest_good(tmp_path) == (3, [])
    for left, folder in zip((2, 1, 0), reversed(folders), strict=True):
        flip(folder / PART, -1)
        found, damaged = newest_good(tmp_path)
        assert (found, [epoch for epoch, _ in damaged]) == (left, list(range(3, left, -1)))
        assert str(folder / PART) in str(damaged[-1][1])


def test_another_version_is_no_damage(tmp_path: Path) -> None:
    store(tmp_path, 1)
    change_version(store(tmp_path, 2))
    with pytest.raises(VersionError, match="format version 4"):
        newest_good(tmp_path)
    run = RunFolder(tmp_path / "run")
    run.begin(make_config())
    shutil.copytree(tmp_path / "epoch-0002", run.checkpoints / "epoch-0002")
    before = run.config_file.stat().st_mtime_ns
    with pytest.raises(VersionError, match="use the version of ray_xml that wrote it"):
        run.begin(make_config(training={"epochs": 7}))
    assert run.epochs_done() == 2
    assert run.config_file.stat().st_mtime_ns == before


def test_set_aside(tmp_path: Path) -> None:
    for number in (1, 2):  # the second takes the place of the first
        store(tmp_path, 4, number=number)
        aside = set_aside(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-0004.damaged"] == [aside.name]
    assert checkpoint.read_manifest(aside)["number"] == 2
    assert checkpoint.epochs_in(tmp_path) == []
    checkpoint.remove_others(tmp_path, set())
    assert aside.exists()


def test_parts_have_the_mode_that_other_files_get(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = store(tmp_path, 1)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"manifest.json": 0o640, PART: 0o640, MOMENTS: 0o640}


def test_a_part_that_changed_before_the_end_is_refused(tmp_path: Path) -> None:
    folder = checkpoint.begin(tmp_path, 1)
    for number in (0, 1):
        checkpoint.save_part(folder, "rows", number, (number, number + 1), {"x": torch.ones(1)})
    (folder / "rows-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"its writers left .*rows-00001.* must share"):
        checkpoint.finish(tmp_path, 1, {})
    assert checkpoint.epochs_in(tmp_path) == []


# ---- going on with a run ----


def stored_run(path: Path, epochs: int = 3) -> RunFolder:
    run = RunFolder(path)
    run.begin(make_config())
    for epoch in range(1, epochs + 1):
        store(run.checkpoints, epoch, line={"epoch": epoch, "loss": 1 / epoch})
        run.save_losses(epoch, np.full(2, epoch, np.float32))
        run.append({"epoch": epoch, "loss": 1 / epoch})
    return run


@KINDS
def test_a_run_goes_on_from_the_last_good_one(tmp_path: Path, kind: str, capsys: Capture) -> None:
    run = stored_run(tmp_path / "run")
    spoil(run.checkpoints / "epoch-0003", kind)
    spoilt = {path.name: path.read_bytes() for path in (run.checkpoints / "epoch-0003").iterdir()}
    assert run.begin(make_config()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("warning: ")
    assert "; moved to epoch-0003.damaged, and the run goes on from epoch 2" in told
    assert "use another" not in told
    assert [line["epoch"] for line in run.lines()] == [1, 2]
    assert run.step_losses().tolist() == [1, 1, 2, 2]
    aside = run.checkpoints / "epoch-0003.damaged"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == spoilt
    assert run.begin(make_config()) == 2
    assert capsys.readouterr().err == ""


def test_where_all_are_damaged_a_run_starts_again(tmp_path: Path, capsys: Capture) -> None:
    run = stored_run(tmp_path / "run", 2)
    for epoch in (1, 2):
        flip(run.checkpoints / f"epoch-000{epoch}" / PART, -1)
    assert run.begin(make_config()) == 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert all("and the run starts from the beginning" in line for line in told)
    assert (run.lines(), len(run.step_losses())) == ([], 0)


@pytest.mark.parametrize("written", [0, 1, 2])
def test_lines_that_were_not_written_any_more_come_back(tmp_path: Path, written: int) -> None:
    """A run may be killed between storing a checkpoint and telling of it."""
    run = stored_run(tmp_path / "run")
    text = run.metrics_file.read_text()
    lines = text.splitlines(keepends=True)
    run.metrics_file.write_text("".join(lines[:written]) + lines[written][:11])
    assert len(run.lines()) == written
    assert run.begin(make_config()) == 3
    assert run.metrics_file.read_text() == text
    run.metrics_file.unlink()
    run.begin(make_config())
    assert run.metrics_file.read_text() == text


def test_lines_that_are_no_lines_are_passed_over(tmp_path: Path) -> None:
    run = stored_run(tmp_path / "run", 1)
    wrong = [b'{"epoch": 2, "x": {}', b"[1]", b"{}", b'{"epoch": "2"}', b"\xff}", b"[" * 5000]
    with open(run.metrics_file, "ab") as file:
        file.write(b"\n".join([*wrong, b'{"epoch": 3}', b""]))
    assert [line["epoch"] for line in run.lines()] == [1, 3]


def test_a_trained_run_goes_on_to_the_same_end(
    data: DataSet, tmp_path: Path, capsys: Capture
) -> None:
    def config(epochs: int):
        return make_config(training={"epochs": epochs, "keep_checkpoints": 2})

    train(data, config(4), tmp_path / "whole")
    train(data, config(3), tmp_path / "spoilt")
    part = tmp_path / "spoilt" / "checkpoints" / "epoch-0003" / "classifier-00000.safetensors"
    flip(part, -1000)
    train(data, config(4), tmp_path / "spoilt")
    assert f"{part}: its bytes are not" in capsys.readouterr().err
    assert_same_tensors(tensors(tmp_path / "whole", 4), tensors(tmp_path / "spoilt", 4))
    runs = [RunFolder(tmp_path / name) for name in ("whole", "spoilt")]
    np.testing.assert_array_equal(*(run.step_losses() for run in runs))
    assert [line["epoch"] for line in runs[1].lines()] == [1, 2, 3, 4]


def test_the_report_is_in_the_checkpoint_before_it_is_told(data: DataSet, tmp_path: Path) -> None:
    config = make_config(training={"epochs": 3})
    run = RunFolder(tmp_path)
    run.begin(config)
    for report in make_training(data, config, run.path).epochs():
        stored = checkpoint.read_manifest(run.checkpoints / f"epoch-{report.line['epoch']:04d}")
        known = {key: value for key, value in stored["line"].items() if key != "seconds"}
        told = {key: value for key, value in report.line.items() if key != "seconds"}
        assert known.keys() == told.keys()
        assert (known["loss"], known["validation"]) == (told["loss"], told["validation"])
        assert report.line["seconds"]["checkpoint"] > stored["line"]["seconds"]["checkpoint"]
        losses = np.load(run.path / "losses" / f"epoch-{report.line['epoch']:04d}.npy")
        np.testing.assert_array_equal(losses, report.step_losses)
    assert run.lines() == []  # nobody told them
    assert run.begin(config) == 3
    assert [line["epoch"] for line in run.lines()] == checkpoint.epochs_in(run.checkpoints)


# ---- prediction ----


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three epochs, all kept."""
    path = tmp_path_factory.mktemp("trained")
    train(data, make_config(training={"epochs": 3, "keep_checkpoints": 3}), path)
    return RunFolder(path)


def test_prediction_takes_the_newest_good_one(
    trained: RunFolder, tmp_path: Path, capsys: Capture, data: DataSet
) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    best = run.model()
    best_epoch = model_of_run(run.path).epoch
    flip(best / "optimizer-classifier-00000.safetensors", -1)
    assert run.model() == best  # prediction does not need it
    assert capsys.readouterr().err == ""
    others = [epoch for epoch in (3, 2, 1) if epoch != best_epoch]
    flip(best / "classifier-00000.safetensors", -1)
    predictor = Predictor.load(run.path)
    assert predictor.model.epoch == others[0]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{best / 'classifier-00000.safetensors'}: its bytes are not" in told
    assert f"; predicting with the checkpoint of epoch {others[0]} instead" in told
    assert (predictor.predict(data.split("test").features).labels[:, 0] >= 0).all()
    os.truncate(run.checkpoints / f"epoch-000{others[0]}" / "manifest.json", 30)
    assert Predictor.load(run.path).model.epoch == others[1]
    assert len(capsys.readouterr().err.splitlines()) == 2
    shutil.rmtree(run.checkpoints / f"epoch-000{others[1]}")
    with pytest.raises(CheckpointError, match=r"manifest\.json: damaged|its bytes are not"):
        run.model()
    assert capsys.readouterr().err == ""


# ---- disks ----


def test_a_read_only_folder_is_told_before_anything_changes(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        run = stored_run(disk.path / "run")
        flip(run.checkpoints / "epoch-0003" / PART, -1)
        before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
        disk.make_read_only()
        said = r"disk/run cannot be written \(Read-only file system\); make it writable, or choose"
        with pytest.raises(ConfigError, match=said):
            run.begin(make_config())
        with pytest.raises(ConfigError, match=r"disk/deep/run cannot be written"):
            RunFolder(disk.path / "deep" / "run").begin(make_config())
        assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_full_disk_stops_a_run_that_goes_on_from_there(data: DataSet, tmp_path: Path) -> None:
    config = make_config(training={"epochs": 3})
    train(data, config, tmp_path / "whole")
    with small_disk(tmp_path / "disk", 32_768) as disk:
        run = RunFolder(disk.path / "run")
        run.begin(config)
        reports = make_training(data, config, run.path).epochs()
        run.append(next(reports).line)
        size = sum(part.stat().st_size for part in (run.checkpoints / "epoch-0001").iterdir())
        filler = disk.fill(leave=size // 2 + 540 * 24 * 2)  # the embeddings fit, and half of it
        said = (
            r"epoch-0002\.unfinished/[a-z-]+-\d{5}\.safetensors: no space left .* free\); make "
            r"room .* same command again; the checkpoint of epoch 1 is whole"
        )
        with pytest.raises(DiskError, match=said):
            list(reports)
        assert [path.name for path in run.checkpoints.iterdir()] == ["epoch-0001"]
        verify(run.checkpoints / "epoch-0001")
        filler.unlink()
        train(data, config, run.path)
        assert_same_tensors(tensors(tmp_path / "whole", 3), tensors(run.path, 3))
        assert [line["epoch"] for line in run.lines()] == [1, 2, 3]


@pytest.mark.parametrize("what", ["embeddings", "neighbors", "losses", "metrics"])
def test_a_full_disk_is_told_wherever_it_is_met(data: DataSet, tmp_path: Path, what: str) -> None:
    config = make_config(training={"epochs": 2})
    with small_disk(tmp_path / "disk", 16_384) as disk:
        run = RunFolder(disk.path / "run")
        run.begin(config)
        if what == "neighbors":
            disk.fill()
            with pytest.raises(DiskError, match=r"run/neighbors\.safetensors: no space left"):
                make_training(data, config, run.path)
            return
        training = make_training(data, config, run.path)
        if what == "embeddings":
            disk.fill()
            said = r"run/embeddings: no space left .*; no epoch was stored yet"
            with pytest.raises(DiskError, match=said):
                list(training.epochs())
            return
        line = next(training.epochs()).line
        disk.fill()
        if what == "losses":
            with pytest.raises(DiskError, match=r"epoch-0002\.npy: no space left"):
                run.save_losses(2, np.zeros(2000, np.float32))
            return
        with pytest.raises(DiskError, match=r"metrics\.jsonl: no space .*of epoch 1 is whole"):
            run.append({**line, "pad": "x" * 5000})
        assert run.lines() == []
        (disk.path / "filler").unlink()
        assert run.begin(config) == 1
        assert [one["epoch"] for one in run.lines()] == [1]


def test_warnings_have_one_line(capsys: Capture) -> None:
    run_folder.tell("something")
    assert capsys.readouterr().err == "warning: something\n"
