"""Training on Ray: the numbers do not hang on how many processes share the work, or on stops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from crossfit import cross_fitted
from small_runs import Run, assert_same_checkpoint, both_config, no_shard_stays, start, tensors

from ray_xml import checkpoint
from ray_xml.evaluation import METRICS
from ray_xml.predictor import Predictor
from ray_xml.store import DataSet


def steps(run: Run, epochs: int) -> np.ndarray:
    return run.folder.step_losses()[: 17 * epochs]


def test_a_run_leaves_what_it_promises(straight: Run, data: DataSet) -> None:
    outcome, folder = straight.outcome, straight.folder
    assert (outcome.epochs, outcome.trained) == (16, 16)
    assert [line["epoch"] for line in outcome.lines] == list(range(1, 17))
    assert len(folder.step_losses()) == 16 * 17
    # Validated where a cycle ends, and it does learn.
    checked = {x["epoch"]: x for x in outcome.lines if "validation" in x}
    assert list(checked) == list(range(2, 17, 2))
    # The neighbours know nearly everything here from the first, so only the dense search can tell.
    assert all(line["validation"]["P@1"] > 90 for line in checked.values())
    assert checked[16]["shortlist_recall"] > checked[2]["shortlist_recall"] + 10
    assert outcome.lines[-1]["loss"] < 0.8 * outcome.lines[0]["loss"]
    assert all(0.1 < line["memory_gib"] < 20 for line in outcome.lines)
    assert all(line["bytes_sent_per_step"] > 0 for line in outcome.lines)
    # Nothing of Ray's, and nothing that says that the run is still going on.
    assert {path.name for path in folder.path.iterdir()} == {
        "config.yaml", "metrics.jsonl", "losses", "checkpoints", "shortlists",
        "neighbors.safetensors", "tensorboard",
    }  # fmt: skip
    assert {path.name for path in folder.checkpoints.iterdir()} == {
        f"epoch-{epoch:04d}" for epoch in range(1, 17)
    }
    assert folder.config().data == str(data.path)
    assert no_shard_stays()


def test_one_process_gives_the_same_as_five(straight: Run, data: DataSet, tmp_path: Path) -> None:
    alone = start(both_config(data, tmp_path / "run", workers=1, shards=1, epochs=4))
    np.testing.assert_allclose(steps(alone, 4), steps(straight, 4), rtol=1e-4)
    assert list(alone.shortlists) == [0, 2]
    for cycle, lists in alone.shortlists.items():
        assert lists == straight.shortlists[cycle], f"cycle {cycle}"
    for ours, theirs in zip(alone.outcome.lines, straight.outcome.lines[:4], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        if "validation" in ours:
            assert ours["validation"] == pytest.approx(theirs["validation"], abs=1.7)  # 1 of 60
            assert ours["proxy_loss"] == pytest.approx(theirs["proxy_loss"], rel=1e-3)
            for key in ("shortlist_recall", "candidate_recall"):
                assert ours[key] == pytest.approx(theirs[key], abs=1.0)
    weights = [blend_weights(run, 4) for run in (alone, straight)]
    np.testing.assert_allclose(weights[0], weights[1], atol=0.1)
    written = [run.folder.neighbors_file.read_bytes() for run in (alone, straight)]
    assert written[0] == written[1]


def blend_weights(run: Run, epoch: int) -> list[float]:
    """The numbers of the score that a checkpoint's validation fitted."""
    folder = checkpoint.folder_of(run.folder.checkpoints, epoch)
    return list(checkpoint.read_manifest(folder)["blend"]["weights"])


@pytest.mark.minutes
def test_one_process_gives_the_same_as_five_without_shortlists(
    cluster: None, data: DataSet, tmp_path: Path
) -> None:
    runs = []
    for workers, shards in ((1, 1), (2, 3)):
        folder = tmp_path / str(workers) / "run"
        folder.parent.mkdir()
        config = both_config(data, folder, workers=workers, shards=shards, epochs=2)
        classifier = config.classifier.model_copy(update={"negatives": "random"})
        runs.append(start(config.model_copy(update={"classifier": classifier})))
        assert runs[-1].shortlists == {}
        assert not (folder / "shortlists").exists()
    np.testing.assert_allclose(steps(runs[0], 2), steps(runs[1], 2), rtol=1e-4)
    weights = [blend_weights(run, 2) for run in runs]
    np.testing.assert_allclose(weights[0], weights[1], atol=0.1)
    checked = [run.outcome.lines[-1]["validation"] for run in runs]
    assert checked[0] == pytest.approx(checked[1], abs=1.7)


def test_a_stop_inside_a_cycle_leaves_no_trace(
    straight: Run, data: DataSet, tmp_path: Path
) -> None:
    stopped = start(both_config(data, tmp_path / "run", workers=2, shards=3, epochs=3))
    assert "validation" in stopped.outcome.lines[-1]  # the last epoch always is
    again = start(both_config(data, tmp_path / "run", workers=2, shards=3, epochs=4))
    assert (again.outcome.epochs, again.outcome.trained) == (4, 1)
    assert_same_checkpoint(again.folder, straight.folder, 4)
    written = [run.folder.neighbors_file.read_bytes() for run in (again, straight)]
    assert written[0] == written[1]
    assert np.array_equal(steps(again, 4), steps(straight, 4))


def test_going_on_with_fewer_processes(straight: Run, data: DataSet, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    back_to(straight, 3, folder)
    again = start(both_config(data, folder, workers=1, shards=2, epochs=6))
    assert [line["epoch"] for line in again.outcome.lines] == list(range(1, 7))
    assert again.outcome.trained == 3
    assert np.array_equal(steps(again, 3), steps(straight, 3))
    np.testing.assert_allclose(steps(again, 6), steps(straight, 6), rtol=1e-3)
    ours, theirs = again.outcome.lines[-1], straight.outcome.lines[5]
    assert ours["validation"] == pytest.approx(theirs["validation"], abs=1.7)


def back_to(run: Run, epoch: int, folder: Path) -> None:
    """A copy of ``run`` as it was after ``epoch`` epochs."""
    shutil.copytree(run.folder.path, folder)
    for later in range(epoch + 1, run.outcome.epochs + 1):
        shutil.rmtree(checkpoint.folder_of(folder / "checkpoints", later))
    cycle = epoch - epoch % 2
    (folder / "shortlists" / f"cycle-{cycle:04d}.i32").write_bytes(run.shortlists[cycle])


def test_the_checkpoint_keeps_every_label_and_column(straight: Run, data: DataSet) -> None:
    held = tensors(straight.folder, 16)
    dim, meta = 24, data.meta
    assert held["tokens.table"].shape == (meta.num_features, dim)
    assert held["classifier.weight"].shape == (meta.num_labels, dim)
    assert held["proxies.proxies"].shape == (meta.num_labels, dim)
    assert held["optimizer-classifier.weight.first"].shape == (meta.num_labels, dim)


def test_the_predictor_agrees_with_the_shards(straight: Run, data: DataSet) -> None:
    """What the run measured on its held-out rows while training is what the model gives later."""
    predictor = Predictor.load(straight.folder.path)
    found = cross_fitted(predictor, data)
    manifest = checkpoint.read_manifest(straight.folder.model())
    told = manifest["validation"]
    assert predictor.model.blend.as_dict() == manifest["blend"]
    assert predictor.model.epoch == straight.outcome.lines[-1]["best"]["epoch"]
    assert {key: told[key] for key in METRICS} == pytest.approx(
        {key: found[key] for key in METRICS}, abs=1e-6
    )
