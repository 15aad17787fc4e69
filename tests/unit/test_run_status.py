"""``ray-xml status``: of runs that go on, stopped, are finished, damaged, or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import make_config, train

from ray_xml import checkpoint
from ray_xml.cli import main
from ray_xml.disk import replace_text
from ray_xml.errors import CheckpointError, ConfigError
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import driver_lock
from ray_xml.run_records import PROGRESS
from ray_xml.run_status import status_of
from ray_xml.store import DataSet

EVENT = {
    "phase": "classifier", "epoch": 2, "epochs": 4, "done": 250, "total": 500,
    "docs_per_second": 812.4, "loss": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs, both checkpoints kept."""
    run = tmp_path_factory.mktemp("status") / "run"
    config = make_config(training={"keep_checkpoints": 2}).resolved(data)
    train(data, config.model_copy(update={"data": str(data.path)}), run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def of_four(run: Path) -> Path:
    """As if the run were to have four epochs."""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("  epochs: 2\n", "  epochs: 4\n"))
    return run


def hold(run: Path, ready: Any) -> None:
    with driver_lock(run):
        ready.set()
        time.sleep(300)


@pytest.fixture
def going_on(run: Path) -> Iterator[tuple[Path, Any]]:
    """A run of four epochs that another process is at."""
    of_four(run)
    replace_text(run / PROGRESS, json.dumps(EVENT))
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(run, ready))
    process.start()
    assert ready.wait(60)
    yield run, process
    process.kill()
    process.join()


def test_a_finished_run(run: Path, data: DataSet, capsys: pytest.CaptureFixture[str]) -> None:
    status = status_of(run, check=True)
    assert (status.state, status.driver, status.done, status.total) == ("finished", None, 2, 2)
    assert status.identity == RunFolder(run).config().identity()
    assert (status.data, status.progress, status.seconds_left) == (str(data.path), None, None)
    assert [one.epoch for one in status.checkpoints] == [1, 2]
    for one in status.checkpoints:
        folder = checkpoint.folder_of(run / "checkpoints", one.epoch)
        assert one.bytes == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        assert (one.predicts, one.damage) == (True, None)
    assert status.best is not None
    best = status.lines[status.best["epoch"] - 1]
    assert status.best["value"] == best["validation"][status.best["metric"]]
    assert abs(status.free - shutil.disk_usage(run).free) < 2**30
    assert main(["status", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{run}: finished, 2 of 2 epochs done\ndata  {data.path}\n")
    assert "\nepoch   1  loss " in said
    assert f"best by nDCG@5 on validation: epoch {status.best['epoch']}, " in said
    assert " free on its disk\n" in said


def test_a_run_that_goes_on(going_on: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    run, process = going_on
    status = status_of(run)
    assert (status.state, status.done, status.total) == ("going on", 2, 4)
    assert status.driver is not None
    assert status.driver.pid == process.pid
    assert status.progress == EVENT
    mean = sum(v for x in status.lines for k, v in x["seconds"].items() if k != "setup") / 2
    assert status.seconds_left == pytest.approx(1.5 * mean)
    assert main(["status", str(run)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{run}: going on, 2 of 4 epochs done (process {process.pid} on ")
    assert said[1].startswith("now   epoch 3/4  classifier  250/500  812 docs/s  loss 0.250  about")
    assert (run / PROGRESS).exists()


def test_a_killed_run_has_stopped_whatever_it_left(going_on: tuple[Path, Any]) -> None:
    run, process = going_on
    process.kill()
    process.join()
    status = status_of(run)
    assert (status.state, status.driver, status.progress) == ("stopped", None, None)


def test_damage_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of_four(run)
    part = next((run / "checkpoints" / "epoch-0002").glob("tokens-*"))
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    assert status_of(run).done == 2  # a flipped bit is found by reading all of it
    status = status_of(run, check=True)
    assert (status.done, status.state) == (1, "stopped")
    assert [one.damage is None for one in status.checkpoints] == [True, False]
    part.write_bytes(content[:-1])
    assert status_of(run).done == 1  # a part that was cut at once
    assert main(["status", str(run)]) == 0
    said = capsys.readouterr().out
    assert "stopped, 1 of 4 epochs done; `ray-xml train` with its run folder goes on\n" in said
    assert f"  damaged: {part}: {len(content) - 1} bytes, the manifest says {len(content)}" in said
    RunFolder(run).begin(RunFolder(run).config())
    assert [(one.epoch, one.aside) for one in status_of(run).checkpoints] == [(1, False), (2, True)]
    assert main(["status", str(run)]) == 0
    assert "damaged, set aside" in capsys.readouterr().out


def test_a_run_before_its_first_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config()
    RunFolder(tmp_path / "run").begin(config)
    with driver_lock(tmp_path / "run"):
        assert main(["status", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"going on, 0 of 2 epochs done (process {os.getpid()} on " in said
    assert "\nnow   starting\n" in said
    assert "no checkpoint yet" in said


def test_no_run_and_a_damaged_config(run: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(CheckpointError, match=r"no run here \(no config\.yaml\); make one"):
            status_of(path)
    for text in ("", "[]", "data: x\n", "training: {epochs: many, schedule: step}\ndata: x\n"):
        (run / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml: damaged, it is not what a run leav"):
            status_of(run)


def test_files_that_somebody_else_wrote_into(
    going_on: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = going_on
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"epoch": -3}\n{"epoch": 4, "loss": "x", "seconds": {}}\n')
    (run / PROGRESS).write_text('{"phase": "classifier"}')
    (run / "checkpoints" / "epoch-0003").mkdir()
    (run / "checkpoints" / "epoch-0004.damaged").symlink_to("nowhere")
    status = status_of(run)
    assert [line["epoch"] for line in status.lines] == [1, 2]
    assert status.progress is None
    assert [(one.epoch, one.bytes > 0) for one in status.checkpoints] == [
        (1, True), (2, True), (3, False), (4, False),
    ]  # fmt: skip
    assert main(["status", str(run)]) == 0
    assert "now   starting" in capsys.readouterr().out


def test_json_is_one_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps({**status_of(run).as_dict(), "free": told["free"]}))
    assert told["checkpoints"][0].keys() == {"epoch", "bytes", "predicts", "damage", "aside"}


def test_following_until_the_run_ends(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray_xml.status_cli._POLL_SECONDS", 0.05)
    monkeypatch.setattr("ray_xml.follow._POLL_SECONDS", 0.02)
    folder = RunFolder(run)
    told = folder.lines()[-1]
    of_four(run)
    replace_text(run / PROGRESS, json.dumps(EVENT))
    for options in (["--follow"], ["--follow", "--json"]):
        held, done = threading.Event(), len(folder.lines())

        def go_on(held: threading.Event = held, done: int = done) -> None:
            with driver_lock(run):
                held.set()
                time.sleep(0.3)
                folder.append({**told, "epoch": done + 1})
                time.sleep(0.3)

        thread = threading.Thread(target=go_on)
        thread.start()
        assert held.wait(20)
        assert main(["status", str(run), *options]) == 0
        thread.join()
        out, err = capsys.readouterr()
        if "--json" in options:
            seen = [json.loads(one) for one in out.splitlines()]
            assert [one["state"] for one in (seen[0], seen[-1])] == ["going on", "stopped"]
            assert {len(one["lines"]) for one in seen} == {done, done + 1}
        else:
            assert "epoch   3  loss" in err
            assert out.count(f"{run}: stopped, 2 of 4 epochs done") == 1


def test_neither_torch_nor_ray_is_waited_for(run: Path) -> None:
    code = (
        "import sys\nfrom ray_xml.cli import main\n"
        f"main(['status', {str(run)!r}, '--json', '--check'])\n"
        "assert not {'torch', 'ray', 'rich', 'scipy'} & sys.modules.keys(), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
