"""The command line as a user meets it, each command a process: train, stop, go on, look."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made import write_xc
from processes import Command, ray_xml, wait_for
from small_runs import Run, assert_same_checkpoint, both_config

from ray_xml.config import dump_config
from ray_xml.predictor import Predictor
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import driver_lock
from ray_xml.store import DataSet

EPOCHS = 16
# Ray's agents see in about 2 s that the raylet is gone, and then may try for 60 s to tell a
# driver that is gone too.
AGENTS_END = 75.0


@dataclass
class Story:
    """A run that is interrupted, then killed, then finished, and what was seen on the way."""

    folder: Path
    ended: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    left: dict[str, list[str]] = field(default_factory=dict)

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "run")

    def train(self, what: str, *, until: int | None = None) -> Command:
        """Starts the training command; waits for its end or until ``until`` epochs are told."""
        command = Command("train", "config.yaml", folder=self.folder)
        if until is not None:
            told = wait_for(lambda: len(self.run.lines()) >= until or not command.running())
            assert told, f"{what}: no epoch in time"
            assert command.running(), f"{what}: {command.end()}"
        return command

    def close(self, what: str, command: Command, seconds: float = 10.0) -> None:
        try:
            self.ended[what] = command.end()
            wait_for(lambda: not command.offspring(), seconds)
            self.left[what] = command.offspring()
            self.done[what] = self.run.epochs_done()
        finally:
            command.clean_up()


@pytest.fixture(scope="module")
def story(straight: Run, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("command-line")
    for split in ("train", "test"):
        one = data.split(split)
        write_xc(folder / f"{split}.txt", one.features, one.labels)
    names = [f"name of {label}" for label in range(data.meta.num_labels)]
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    story = Story(folder)
    story.ended["prepare"] = ray_xml(
        "prepare", "xc", "train.txt", "test.txt", "data", "--label-names", "names.txt",
        folder=folder,
    )  # fmt: skip
    config = both_config(data, folder / "run", workers=2, shards=3, epochs=EPOCHS)
    # Paths as a user writes them: relative to where the command is given.
    config = config.model_copy(update={"data": "data", "run": "run"})
    (folder / "config.yaml").write_text(dump_config(config))
    command = story.train("interrupted", until=1)
    command.interrupt()
    story.close("interrupted", command)
    command = story.train("killed", until=story.done["interrupted"] + 1)
    command.kill()
    status = command.end()
    done = story.run.epochs_done()
    # While what is left of the killed run goes away, the next one does its work, as a user would
    # have it.
    story.close("finished", story.train("finished"))
    story.close("killed", command, AGENTS_END)
    story.ended["killed"], story.done["killed"] = status, done
    return story


def test_prepare_gives_the_same_documents(story: Story, data: DataSet) -> None:
    status, out, err = story.ended["prepare"]
    assert (status, err) == (0, "")
    assert "data: 300 features, 80 labels\n" in out
    assert "train: 600 documents, 1,186 label pairs" in out
    assert DataSet.open(story.folder / "data").meta.splits == data.meta.splits


def test_ctrl_c_stops_and_says_how_to_go_on(story: Story) -> None:
    status, _, err = story.ended["interrupted"]
    assert status == 130
    assert "stopped; the same command goes on from the last whole epoch" in err
    assert "Traceback" not in err
    assert 1 <= story.done["interrupted"] < EPOCHS
    assert story.left["interrupted"] == []


def test_the_same_run_at_once_is_refused(story: Story) -> None:
    with driver_lock(story.run.path):
        status, out, err = ray_xml("train", "config.yaml", folder=story.folder)
    assert (status, out) == (1, "")
    assert re.fullmatch(
        rf"error: \S+/run is being trained already by process {os.getpid()} on \S+; wait for it, "
        r"stop it, or choose another run folder\n",
        err,
    )


def test_a_killed_driver_takes_ray_with_it(story: Story) -> None:
    assert story.ended["killed"][0] == -9
    assert story.done["interrupted"] < story.done["killed"] < EPOCHS
    assert story.left["killed"] == []


def test_the_same_command_finishes_the_run(story: Story, straight: Run) -> None:
    status, out, err = story.ended["finished"]
    assert status == 0, err
    assert "best by nDCG@5 on validation:\nepoch" in out
    assert "next: ray-xml evaluate run" in out
    # The epochs of this call, and no others, were shown as they came.
    shown = [int(line.split()[1]) for line in err.splitlines() if line.startswith("epoch  ")]
    assert shown == list(range(story.done["killed"] + 1, EPOCHS + 1))
    assert story.left["finished"] == []
    names = {path.name for path in story.run.path.iterdir()}
    assert names == {
        "config.yaml", "metrics.jsonl", "losses", "checkpoints", "shortlists",
        "neighbors.safetensors", "tensorboard",
    }  # fmt: skip


def test_stops_leave_no_trace_in_the_model(story: Story, straight: Run) -> None:
    assert_same_checkpoint(story.run, straight.folder, EPOCHS)
    assert np.array_equal(story.run.step_losses(), straight.folder.step_losses())
    written = [run.neighbors_file.read_bytes() for run in (story.run, straight.folder)]
    assert written[0] == written[1]
    keys = ("epoch", "loss", "validation")
    ours, theirs = (
        [{key: line.get(key) for key in keys} for line in one.lines()]
        for one in (story.run, straight.folder)
    )
    assert ours == theirs


def test_training_again_says_that_it_is_done(story: Story) -> None:
    status, out, err = ray_xml("train", "config.yaml", folder=story.folder)
    assert (status, err) == (0, "")
    assert f"all {EPOCHS} epochs are done already" in out


def test_evaluate_prints_one_json_object(story: Story) -> None:
    status, out, _ = ray_xml("evaluate", "run", "--json", folder=story.folder)
    assert status == 0
    results = json.loads(out)
    for kind in ("P", "nDCG", "PSP", "PSnDCG"):
        for k in (1, 3, 5):
            assert 5 < results[f"{kind}@{k}"] <= 100, kind
    assert results["P@1"] > 60
    assert out.count("\n") == 1


def test_predictions_are_the_predictor_s(story: Story, data: DataSet) -> None:
    status, out, _ = ray_xml("predict", "run", "data", "--out", "p.parquet", folder=story.folder)
    assert (status, out) == (0, "p.parquet: 150 documents\n")
    table = pq.read_table(story.folder / "p.parquet").to_pydict()
    expected = Predictor.load(story.run.path).predict(data.split("test").features)
    assert table["labels"] == expected.labels.tolist()
    assert table["scores"] == expected.scores.tolist()
    assert table["names"][0] == [f"name of {label}" for label in expected.labels[0]]


def test_an_export_predicts_as_the_run_does(story: Story, data: DataSet) -> None:
    status, out, err = ray_xml("export", "run", "small", "--dtype", "fp16", folder=story.folder)
    assert (status, err) == (0, "")
    assert out.startswith("small: model of epoch ")
    results = []
    for model in ("run", "small"):
        status, out, _ = ray_xml("evaluate", model, "--json", folder=story.folder)
        assert status == 0
        results.append(json.loads(out))
    assert results[0] == pytest.approx(results[1], abs=1.0)
    (story.folder / "elsewhere").mkdir()
    (story.folder / "small").rename(story.folder / "elsewhere" / "small")
    features = data.split("test").features
    one, other = (
        Predictor.load(path).predict(features).labels
        for path in (story.run.path, story.folder / "elsewhere" / "small")
    )
    assert (one == other).mean() > 0.98
    status, out, err = ray_xml("export", "run", "elsewhere", folder=story.folder)
    assert (status, out) == (1, "")
    assert "elsewhere exists already; choose a new folder" in err


def test_examples_show_names(story: Story) -> None:
    status, out, _ = ray_xml("examples", "run", "--count", "3", folder=story.folder)
    assert status == 0
    assert out.count("document ") == 3
    assert "✓" in out
    assert "name of " in out


@pytest.fixture(scope="module")
def spoilt(story: Story) -> Path:
    """The data set with a feature number that it does not have, sizes as before."""
    folder = story.folder / "spoilt"
    shutil.copytree(story.folder / "data", folder)
    file = folder / "train.arrow"
    raw = file.read_bytes()
    ids = DataSet.open(folder).split("train").features.ids[:64]
    assert raw.count(ids.tobytes()) == 1
    file.write_bytes(raw.replace(ids.tobytes(), np.full(64, 2**30, np.int32).tobytes()))
    return folder


def test_a_spoilt_data_set_is_refused(story: Story, spoilt: Path) -> None:
    status, out, err = ray_xml(
        "train", "config.yaml", "data=spoilt", "run=refused", folder=story.folder
    )
    assert (status, out) == (1, "")
    assert "error: " in err
    assert "spoilt" in err
    assert "Traceback" not in err


def test_a_worker_s_traceback_reaches_the_terminal(story: Story) -> None:
    shutil.copytree(story.run.path, story.folder / "bad")
    shutil.rmtree(story.folder / "bad" / "losses")
    (story.folder / "bad" / "losses").write_text("where a folder should be")
    overrides = (
        "run=bad", f"training.epochs={EPOCHS + 1}", "resources.workers=1",
        "resources.label_shards=1",
    )  # fmt: skip
    command = Command("train", "config.yaml", *overrides, folder=story.folder)
    story.close("failed", command)
    status, _, err = story.ended["failed"]
    assert status == 1
    assert "error: worker 0 failed:" in err
    assert "in _work" in err
    assert "FileExistsError" in err
    assert story.left["failed"] == []
