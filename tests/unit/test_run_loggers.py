"""Loggers, read back with what their users would read them with, where it is installed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from made import make_config

from ray_xml.errors import ConfigError
from ray_xml.follow import Follower
from ray_xml.log_tensorboard import TensorBoardLogger, steps_in
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_loggers import run_loggers


def line(epoch: int, loss: float | None = None) -> dict[str, Any]:
    return {
        "epoch": epoch, "loss": 1.0 / epoch if loss is None else loss, "seconds": {"setup": 2.0},
        "validation": {"P@1": 50.0 + epoch}, "best": {"epoch": epoch, "metric": "P@1"},
    }  # fmt: skip


def lines(*epochs: int) -> list[dict[str, Any]]:
    return [line(epoch) for epoch in epochs]


def config_of(run: Path, **logging: Any) -> RunConfig:
    config = make_config(logging={"tensorboard": False, **logging})
    return config.model_copy(update={"run": str(run)})


# ---- TensorBoard -----------------------------------------------------------------------------


def shown(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each tag as TensorBoard shows them: record by record, by hand."""
    from tensorboardX.crc32c import crc32c
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    def checked(content: bytes, told: bytes) -> None:
        crc = crc32c(content)
        assert struct.unpack("<I", told)[0] == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((run / "tensorboard").iterdir()):
        rest = file.read_bytes()
        while rest:
            (length,) = struct.unpack("<Q", rest[:8])
            checked(rest[:8], rest[8:12])
            checked(rest[12 : 12 + length], rest[12 + length : 16 + length])
            event = Event.FromString(rest[12 : 12 + length])
            rest = rest[16 + length :]
            if event.session_log.status == SessionLog.START:
                found = {
                    tag: [one for one in points if one[0] < event.step]
                    for tag, points in found.items()
                }
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def told(run: Path, before: Iterable[int], *new: dict[str, Any]) -> None:
    """One call of a run: epochs that were done before it, and those that it did."""
    logger = TensorBoardLogger(run)
    logger.begin(lines(*before))
    for one in new:
        logger.epoch(one)
    logger.end("finished")


def test_tensorboard_shows_every_number_of_every_epoch(tmp_path: Path) -> None:
    told(tmp_path, [], *lines(1, 2))
    assert shown(tmp_path) == {
        "loss": [(1, 1.0), (2, 0.5)],
        "seconds/setup": [(1, 2.0), (2, 2.0)],
        "validation/P@1": [(1, 51.0), (2, 52.0)],
    }


def test_a_run_that_goes_on_shows_no_epoch_twice_in_tensorboard(tmp_path: Path) -> None:
    told(tmp_path, [], *lines(1, 2))
    told(tmp_path, [1, 2], *lines(3))
    assert [step for step, _ in shown(tmp_path)["loss"]] == [1, 2, 3]
    told(tmp_path, [1, 2], line(3, 0.25), line(4))  # the checkpoint of epoch 3 was damaged
    assert shown(tmp_path)["loss"] == [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.25)]
    assert steps_in(tmp_path / "tensorboard") == {1, 2, 3, 4}


def test_an_epoch_trained_anew_replaces_itself_in_tensorboard(tmp_path: Path) -> None:
    told(tmp_path, [], *lines(1, 2, 3), line(2, 0.125), line(3, 0.0625))
    assert shown(tmp_path)["loss"] == [(1, 1.0), (2, 0.125), (3, 0.0625)]


def test_what_tensorboard_missed_is_written_later(tmp_path: Path) -> None:
    told(tmp_path, [1, 2])  # its files were deleted, or it was off
    told(tmp_path, [1, 2, 3, 4], *lines(5))  # killed before 3 and 4 were written
    assert [step for step, _ in shown(tmp_path)["loss"]] == [1, 2, 3, 4, 5]


def test_a_cut_event_file_costs_its_last_epoch_alone(tmp_path: Path) -> None:
    told(tmp_path, [], *lines(1, 2))
    (file,) = (tmp_path / "tensorboard").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert steps_in(tmp_path / "tensorboard") == {1}
    file.write_bytes(file.read_bytes()[:-1])
    told(tmp_path, [1, 2], *lines(3))
    assert steps_in(tmp_path / "tensorboard") == {1, 2, 3}


def test_tensorboard_itself_reads_it(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    event_accumulator = pytest.importorskip(name)
    told(tmp_path, [], *lines(1, 2, 3))
    told(tmp_path, [1, 2], line(3, 0.25), line(4))
    reader = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    assert [(one.step, one.value) for one in reader.Scalars("loss")] == [
        (1, 1.0), (2, 0.5), (3, 0.25), (4, 0.25),
    ]  # fmt: skip


def test_a_disk_that_takes_no_event_file_is_told_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    run = RunFolder(tmp_path)
    with Follower(tmp_path, run_loggers(config_of(tmp_path, tensorboard=True))):
        run.append(line(1))
    assert capsys.readouterr().err.startswith("warning: TensorBoard failed (FileExistsError: ")


# ---- which ones ------------------------------------------------------------------------------


def test_what_the_config_asks_for(tmp_path: Path) -> None:
    assert run_loggers(config_of(tmp_path)) == []
    (one,) = run_loggers(config_of(tmp_path, tensorboard=True))
    assert one.name == "TensorBoard"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "key", "value", "said"),
    [
        ("mlflow", "mlflow", "file:///m", r"install the extra mlflow: pip install 'ray-xml\[mlf"),
        ("wandb", "wandb", "xml", r"pip install 'ray-xml\[wandb\]', or set logging.wandb=null"),
        ("tensorboardX", "tensorboard", True, "tensorboardX, or set logging.tensorboard=false"),
    ],
)
def test_a_missing_package_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, key: str, value: Any, said: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"ray_xml.log_{key}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=said):
        run_loggers(config_of(tmp_path, **{key: value}))


# ---- MLflow, Weights & Biases ----------------------------------------------------------------


def test_mlflow_has_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "store").as_uri()
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    config = config_of(run.path, mlflow=uri)

    def go_on(*epochs: int, error: type[BaseException] | None = None) -> None:
        try:
            with Follower(run.path, run_loggers(config)):
                for epoch in epochs:
                    run.append(line(epoch))
                if error is not None:
                    raise error
        except KeyboardInterrupt:
            pass

    go_on(1, 2, error=KeyboardInterrupt)
    client = mlflow.tracking.MlflowClient(tracking_uri=uri)
    number = client.get_experiment_by_name("ray_xml").experiment_id
    (one,) = client.search_runs([number])
    assert one.info.status == "KILLED"
    go_on(3)
    (one,) = client.search_runs([number])
    assert (one.info.status, one.info.run_name) == ("FINISHED", "run")
    assert one.data.params["encoder.dim"] == "24"
    assert one.data.tags["ray_xml.identity"] == config.identity()
    for key, values in (("loss", [1.0, 0.5, 1 / 3]), ("validation/P_at_1", [51.0, 52.0, 53.0])):
        history = client.get_metric_history(one.info.run_id, key)
        assert [(m.step, m.value) for m in history] == list(enumerate(values, start=1))
    client.delete_run(one.info.run_id)
    go_on(4)
    (other,) = client.search_runs([number])  # a run that was deleted is not gone on with
    assert len(client.get_metric_history(other.info.run_id, "loss")) == 4


def test_wandb_has_the_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    config = config_of(run.path, wandb="xml")
    for epochs in ((1, 2), (3,)):
        with Follower(run.path, run_loggers(config)):
            for epoch in epochs:
                run.append(line(epoch))
    kept = json.loads((run.path / "loggers" / "wandb.json").read_text())
    assert (kept["project"], kept["epoch"]) == ("xml", 3)
    files = sorted((run.path / "loggers" / "wandb").glob(f"offline-run-*/run-{kept['id']}.wandb"))
    end = time.monotonic() + 20  # wandb's own process writes on for a moment
    while (steps := [wandb_steps(file) for file in files]) != [[1, 2], [3]]:
        assert time.monotonic() < end, steps
        time.sleep(0.1)


def test_wandb_asks_no_questions(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = "from ray_xml.log_wandb import WandbLogger; from pathlib import Path\n"
    code += "WandbLogger('xml', Path(), {})"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    done = subprocess.run(  # wandb reads its settings once a process
        [sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "ConfigError: logging.wandb=xml, but nobody is logged in" in done.stderr


def wandb_steps(file: Path) -> list[int]:
    """Steps of the records in a file of wandb's."""
    from wandb.proto.wandb_internal_pb2 import Record

    # LevelDB's log format behind seven bytes: checksum, length, and whether it is a whole record.
    content, at, steps = file.read_bytes(), 7, []
    assert len(content) < 32768, "more than a block: this reader knows only the first"
    while at + 7 <= len(content):
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        assert kind == 1
        record = Record.FromString(content[at + 7 : at + 7 + length])
        at += 7 + length
        if record.WhichOneof("record_type") == "history":
            steps.append(record.history.step.num)
    return steps
