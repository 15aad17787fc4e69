"""The epoch loop in one process: it learns, it goes on where it stopped, ranges leave no trace."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import make_config, make_data_set, make_training, train, whole
from safetensors.torch import load_file

from ray_xml import checkpoint, partition, run_state, shortlists
from ray_xml.blend import DEFAULT
from ray_xml.checkpoint_check import verify
from ray_xml.epoch_steps import Steps
from ray_xml.errors import CheckpointError, TrainingError
from ray_xml.metrics import top_labels_baseline
from ray_xml.neighbors import NeighborsConfig
from ray_xml.predictor import Predictor
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.shortlists import Shortlists
from ray_xml.store import DataSet
from ray_xml.training import Training
from ray_xml.truth import Truth


def tensors(folder: Path, epoch: int) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint; bfloat16 as the integers of its bits."""
    found: dict[str, np.ndarray] = {}
    for path in sorted((folder / "checkpoints" / f"epoch-{epoch:04d}").glob("*.safetensors")):
        for name, value in load_file(path).items():
            bits = value.view(torch.int16) if value.dtype == torch.bfloat16 else value
            found[f"{path.stem}/{name}"] = bits.numpy()
    return found


def assert_same_tensors(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    assert len(one) > 15
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def longer(cycle_epochs: int, epochs: int, **training: float) -> RunConfig:
    return make_config(
        encoder={"dropout": 0.3},
        shortlist={"source": "both"},
        training={"epochs": epochs, "cycle_epochs": cycle_epochs, **training},
    )


def test_it_learns(data: DataSet, tmp_path: Path) -> None:
    config = make_config(encoder={"tokens": "svd", "dim": 48}, training={"epochs": 8})
    training = train(data, config, tmp_path)
    test = data.split("test")
    baseline = training.sums.from_array(np.zeros_like(training.sums.as_array()))
    top = top_labels_baseline(training.label_counts, 5)
    baseline.update(np.tile(top, (test.num_documents, 1)), test.labels)
    found = training.refresher.validate(
        test.features, Truth(test.labels), training.lexical, training.sums
    )
    assert baseline.result()["P@1"] < 20
    assert found.results["P@1"] > 60
    assert found.candidate_recall > found.recall > 70
    losses = [line["loss"] for line in RunFolder(tmp_path).lines()]
    assert len(losses) == 8
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(
    ("cycle_epochs", "negatives", "neighbors"),
    [(1, "union", 0), (2, "union", 100), (3, "shortlist", 100), (2, "random", 100)],
)
def test_two_and_two_epochs_are_four(
    data: DataSet, tmp_path: Path, cycle_epochs: int, negatives: str, neighbors: int
) -> None:
    def config(epochs: int) -> RunConfig:
        made = longer(cycle_epochs, epochs)
        update = {"negatives": negatives}
        return made.model_copy(
            update={
                "classifier": made.classifier.model_copy(update=update),
                "neighbors": NeighborsConfig(size=neighbors),
            }
        )

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(data, config(4), whole)
    train(data, config(2), halves)
    half = RunFolder(halves).neighbors_file.read_bytes()
    train(data, config(4), halves)
    written = [RunFolder(folder).neighbors_file.read_bytes() for folder in (whole, halves)]
    assert written == [half, half]
    manifests = [
        checkpoint.read_manifest(folder / "checkpoints" / "epoch-0004")
        for folder in (whole, halves)
    ]
    assert manifests[0]["blend"] == manifests[1]["blend"] is not None
    assert_same_tensors(tensors(whole, 4), tensors(halves, 4))
    np.testing.assert_array_equal(RunFolder(whole).step_losses(), RunFolder(halves).step_losses())
    lines = [RunFolder(folder).lines() for folder in (whole, halves)]
    assert [line["epoch"] for line in lines[1]] == [1, 2, 3, 4]
    for one, other in zip(*lines, strict=True):
        assert (one["loss"], one["rate"]) == (other["loss"], other["rate"])
    for key in ("validation", "shortlist_recall", "candidate_recall"):
        assert lines[0][-1][key] == lines[1][-1][key]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_killed_after_any_epoch_goes_on(data: DataSet, tmp_path: Path, stop: int) -> None:
    config = longer(2, 4)
    train(data, config, tmp_path / "whole")
    run = RunFolder(tmp_path / "killed")
    run.begin(config)
    for report in make_training(data, config, run.path).epochs():
        run.append(report.line)
        if report.line["epoch"] == stop:
            break
    train(data, config, run.path)
    assert_same_tensors(tensors(tmp_path / "whole", 4), tensors(run.path, 4))
    assert [line["epoch"] for line in run.lines()] == [1, 2, 3, 4]


def test_a_finished_run_trains_no_more(data: DataSet, tmp_path: Path) -> None:
    train(data, longer(1, 2), tmp_path)
    before = tensors(tmp_path, 2)
    assert list(make_training(data, longer(1, 2), tmp_path).epochs()) == []
    assert_same_tensors(before, tensors(tmp_path, 2))


@pytest.mark.parametrize(
    ("source", "solver"), [("both", "irls"), ("proxy", "adam"), ("classifier", "irls")]
)
def test_the_number_of_ranges_leaves_no_trace(
    data: DataSet, tmp_path: Path, source: str, solver: str
) -> None:
    config = make_config(
        shortlist={"source": source},
        proxy={"solver": solver, "hidden": 16},
        training={"epochs": 3},
    )
    runs = []
    for parts in (1, 3):
        train(data, config, tmp_path / str(parts), parts=parts)
        runs.append(RunFolder(tmp_path / str(parts)))
    np.testing.assert_allclose(runs[0].step_losses(), runs[1].step_losses(), rtol=1e-6)
    for key in ("shortlist_recall", "candidate_recall"):
        recalls = [[line[key] for line in run.lines()] for run in runs]
        assert recalls[0] == recalls[1]
    blends = [checkpoint.read_manifest(run.model())["blend"]["weights"] for run in runs]
    np.testing.assert_allclose(blends[0], blends[1], atol=0.01)


@pytest.mark.parametrize("negatives", ["union", "random", "shortlist"])
def test_an_epoch_visits_every_document_once(
    data: DataSet, tmp_path: Path, negatives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(classifier={"negatives": negatives}, training={"batch_size": 100})
    training = make_training(data, config, tmp_path)
    seen: list[list[int]] = []
    forward = training.encoder.forward

    def watched(batch, epoch):
        assert epoch == len(seen) // 6
        seen.append(batch.documents.tolist())
        return forward(batch, epoch)

    monkeypatch.setattr(training.encoder, "forward", watched)
    reports = list(training.epochs())
    assert [len(report.step_losses) for report in reports] == [6, 6]
    for epoch in range(2):
        visited = [document for batch in seen[6 * epoch : 6 * epoch + 6] for document in batch]
        expected = partition.epoch_order(540, seed=0, epoch=epoch)
        assert visited == expected.tolist()
    assert [len(batch) for batch in seen[:6]] == [100] * 5 + [40]


def test_held_out_documents_are_not_trained_on(data: DataSet, tmp_path: Path) -> None:
    training = make_training(data, make_config(), tmp_path)
    train_split = data.split("train")
    assert training.features.num_rows == 540
    assert training.held_features.num_rows == 60
    counts = training.labels.column_counts() + training.held_truth.given.column_counts()
    np.testing.assert_array_equal(counts, train_split.labels.column_counts())
    all_rows = make_training(data, make_config(training={"validation": 0.0}), tmp_path)
    assert all_rows.features.num_rows == 600


def test_without_validation_the_last_checkpoint_is_the_model(data: DataSet, tmp_path: Path) -> None:
    config = make_config(training={"validation": 0.0, "epochs": 3})
    train(data, config, tmp_path)
    run = RunFolder(tmp_path)
    assert run.model().name == "epoch-0003"
    assert checkpoint.read_manifest(run.model())["blend"] == DEFAULT.as_dict()


def watched_refreshes(training: Training, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """(epochs done, what happened) of the refreshes to come."""
    seen: list[tuple[int, str]] = []

    def watch(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def watched(*given: Any) -> Any:
            seen.append((training.state.epoch, name))
            return method(*given)

        monkeypatch.setattr(owner, name, watched)

    for name in ("fit_proxies", "send_classifier", "validate"):
        watch(training.refresher, name)
    watch(Shortlists, "search")
    return seen


NO_LISTS = [{"negatives": "random"}, {"negatives": "union", "random_negatives": 80}]


@pytest.mark.parametrize("classifier", NO_LISTS)
def test_where_shortlists_have_no_say_none_are_made(
    data: DataSet, tmp_path: Path, classifier: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(classifier=classifier, training={"epochs": 4, "cycle_epochs": 2})
    training = make_training(data, config, tmp_path)
    seen = watched_refreshes(training, monkeypatch)
    lines = [report.line for report in training.epochs()]
    whole = ["fit_proxies", "send_classifier", "validate"]
    assert seen == [(epoch, name) for epoch in (2, 4) for name in whole]
    assert not (tmp_path / "shortlists").exists()
    assert ["validation" in line for line in lines] == [False, True, False, True]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_where_shortlists_have_a_say_the_first_epoch_has_them(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(training={"epochs": 3, "cycle_epochs": 2})
    training = make_training(data, config, tmp_path)
    seen = watched_refreshes(training, monkeypatch)
    assert len(list(training.epochs())) == 3
    lists = ["search"]
    assert seen == [
        *((0, name) for name in ["fit_proxies", *lists]),
        *((2, name) for name in ["fit_proxies", "send_classifier", "validate", *lists]),
        *((3, name) for name in ["fit_proxies", "send_classifier", "validate"]),
    ]


def test_random_negatives_train_what_union_trains_without_its_shortlists(
    data: DataSet, tmp_path: Path
) -> None:
    """Once all labels are drawn, nothing else can join them."""
    runs = []
    for negatives in ("random", "union"):
        classifier = {"negatives": negatives, "random_negatives": 80}
        train(data, make_config(classifier=classifier), tmp_path / negatives)
        runs.append(tensors(tmp_path / negatives, 2))
    assert_same_tensors(*runs)


def test_without_a_dense_search_the_neighbours_labels_are_the_candidates(
    data: DataSet, tmp_path: Path
) -> None:
    config = make_config(shortlist={"size": 0}, classifier={"negatives": "random"})
    train(data, config, tmp_path)
    run = RunFolder(tmp_path)
    line = run.lines()[-1]
    assert line["shortlist_recall"] == 0
    assert line["candidate_recall"] > 80
    assert line["validation"]["P@1"] > 60
    found = Predictor.load(tmp_path).predict(data.split("test").features)
    assert (found.labels[:, 0] >= 0).all()


@pytest.mark.parametrize("where", ["table", "classifier", "block"])
def test_a_nan_stops_the_run(data: DataSet, tmp_path: Path, where: str) -> None:
    config = make_config(training={"epochs": 3})
    training = make_training(data, config, tmp_path)
    reports = training.epochs()
    next(reports)
    if where == "table":
        training.encoder.table[:, 0] = float("nan")
    elif where == "classifier":
        training.classifier.bias[:] = float("nan")
    else:
        with torch.no_grad():
            training.encoder.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"loss became nan at step \d+ of epoch 2"):
        next(reports)
    assert RunFolder(tmp_path).epochs_done() == 1


def spoilt(training: Training, documents: list[int], value: float) -> None:
    """Gives one feature of some documents a value that no reader would let in."""
    features = whole(training.features)
    assert features.values is not None
    for document in documents:
        features.values[features.offsets[document]] = value
    training.batches = replace(training.batches, features=features)


def everything(training: Training) -> dict[str, torch.Tensor]:
    """Copies of all weights and moments that a step moves."""
    found = {}
    for kind, _, tensors, moments in run_state._parts(training.encoder, training.classifier):
        both = {**tensors, **run_state._moments(moments)}
        found |= {f"{kind}.{name}": tensor.clone() for name, tensor in both.items()}
    del found["encoder.power"]  # of spectral normalisation, which no gradient moves
    return found


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_whose_loss_is_not_finite_is_not_taken(
    data: DataSet, tmp_path: Path, value: float
) -> None:
    training = make_training(data, make_config(training={"epochs": 3}), tmp_path)
    reports = training.epochs()
    next(reports)
    order = partition.epoch_order(540, seed=0, epoch=1)
    bad = order[[2 * 64 + 5, 2 * 64 + 9]]  # of the third batch
    spoilt(training, bad.tolist(), value)
    steps: list[dict[str, torch.Tensor]] = []
    step = training.classifier.step

    def watched(*given: Any) -> Any:
        steps.append(everything(training))
        return step(*given)

    training.classifier.step = watched  # type: ignore[method-assign]
    rows = training.steps.rows
    named = ", ".join(str(rows[document]) for document in bad)
    batch = ", ".join(str(row) for row in rows[order[128:133]])
    said = (
        rf"the loss became (nan|inf) at step 2 of epoch 2; checkpoints of earlier epochs are good; "
        rf"its batch is rows {batch}, … \(64 in all\) of the train split; the embeddings of rows "
        rf"{named} are not finite: look at their feature values"
    )
    with pytest.raises(TrainingError, match=said):
        next(reports)
    after = everything(training)
    assert len(steps) == 3
    assert all(torch.equal(after[name], value) for name, value in steps[2].items())
    assert not torch.equal(after["classifier.weight"], steps[1]["classifier.weight"])
    assert RunFolder(tmp_path).epochs_done() == 1
    verify(RunFolder(tmp_path).checkpoints / "epoch-0001")


def test_an_absurd_rate_stops_the_run(data: DataSet, tmp_path: Path) -> None:
    config = make_config(training={"rate": 1e30})
    said = r"loss became (nan|inf|-inf) at step \d+ of epoch 1; .*lower training\.rate"
    with pytest.raises(TrainingError, match=said) as caught:
        train(data, config, tmp_path)
    assert not isinstance(caught.value, CheckpointError)
    assert RunFolder(tmp_path).epochs_done() == 0


@pytest.mark.parametrize("where", ["table", "moment"])
def test_numbers_that_are_not_finite_are_not_stored(
    data: DataSet, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as of a token that is in no document of the epoch, or a moment that ran over."""
    training = make_training(data, make_config(training={"epochs": 3}), tmp_path)
    reports = training.epochs()
    next(reports)
    refresh = training._refresh

    def spoils() -> None:
        refresh()
        if where == "table":
            training.encoder.table[7, 3] = float("nan")
        else:
            training.classifier.weight_adam.second[7, 3] = float("inf")

    monkeypatch.setattr(training, "_refresh", spoils)
    name = "tokens.table" if where == "table" else "optimizer-classifier.weight.second"
    said = rf"{name} holds numbers that are not finite after epoch 2, so that it is not stored"
    with pytest.raises(TrainingError, match=said):
        next(reports)
    assert [path.name for path in RunFolder(tmp_path).checkpoints.iterdir()] == ["epoch-0001"]


def test_another_data_set_is_refused(data: DataSet, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(data, make_config(training={"epochs": 1}), run)
    other = make_data_set(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"give the data set it was trained on") as caught:
        make_training(other, make_config(), run)
    assert other.meta.checksum[:12] in str(caught.value)
    assert data.meta.checksum[:12] in str(caught.value)


def test_a_lost_shortlist_is_made_anew(data: DataSet, tmp_path: Path) -> None:
    """From the model as it is then, for all epochs that are left of the cycle."""
    train(data, longer(4, 2), tmp_path)
    (lost,) = (tmp_path / "shortlists").iterdir()
    before = lost.read_bytes()
    lost.unlink()
    shutil.copytree(tmp_path / "checkpoints", tmp_path / "same" / "checkpoints")
    reports = make_training(data, longer(4, 4), tmp_path).epochs()
    assert next(reports).line["epoch"] == 3
    found = np.fromfile(lost, np.int32).reshape(540, -1)
    assert found.tobytes() != before
    assert [report.line["epoch"] for report in reports] == [4]
    assert lost.read_bytes() == found.tobytes()  # the fourth epoch took them from the file
    # They are what a refresh of the model after two epochs finds.
    again = make_training(data, longer(4, 4), tmp_path / "same")
    again._refit(0)
    order = partition.epoch_order(540, seed=0, epoch=0)
    lists = Shortlists(tmp_path / "same" / "lists" / "made.i32", order, again.config.shortlist)
    expected = lists.search(64, again.ranges, again.exchange, again.device, lambda _: None)
    np.testing.assert_array_equal(found, np.concatenate([one for _, one in expected]))


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_without_its_shortlists_goes_on_alike_every_time(
    data: DataSet, tmp_path: Path, stop: int
) -> None:
    train(data, longer(3, stop), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "shortlists")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for name in ("run", "copy"):
        train(data, longer(3, 5), tmp_path / name)
    assert_same_tensors(tensors(tmp_path / "run", 5), tensors(tmp_path / "copy", 5))
    assert RunFolder(tmp_path / "run").epochs_done() == 5


def test_a_stop_where_a_cycle_begins_needs_no_shortlists(data: DataSet, tmp_path: Path) -> None:
    """They are searched for there anyway, so that losing them leaves no trace."""
    train(data, longer(2, 4), tmp_path / "whole")
    train(data, longer(2, 2), tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / "shortlists")
    train(data, longer(2, 4), tmp_path / "lost")
    assert_same_tensors(tensors(tmp_path / "whole", 4), tensors(tmp_path / "lost", 4))


def test_a_run_killed_inside_the_first_epoch_of_a_cycle_goes_on(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the shortlists have been written then."""
    monkeypatch.setattr(shortlists, "_STRETCH", 64)
    config = longer(2, 4)
    train(data, config, tmp_path / "whole")
    run = RunFolder(tmp_path / "killed")
    run.begin(config)
    training = make_training(data, config, run.path)
    step = Steps._step

    def killed(self: Steps, batch: Any, epoch: int, number: int, rate: float) -> torch.Tensor:
        if (epoch, number) == (2, 4):
            raise KeyboardInterrupt
        return step(self, batch, epoch, number, rate)

    patch = pytest.MonkeyPatch()
    patch.setattr(Steps, "_step", killed)
    epochs = training.epochs()
    for _ in range(2):
        report = next(epochs)
        run.append(report.line)
    with pytest.raises(KeyboardInterrupt):
        next(epochs)
    names = [path.name for path in (run.path / "shortlists").iterdir()]
    assert names == ["cycle-0002.i32.unfinished"]
    patch.undo()
    train(data, config, run.path)
    assert_same_tensors(tensors(tmp_path / "whole", 4), tensors(run.path, 4))
    np.testing.assert_array_equal(RunFolder(tmp_path / "whole").step_losses(), run.step_losses())


def test_the_length_of_a_stretch_leaves_no_trace(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stretch in (64, 200, 4096):
        monkeypatch.setattr(shortlists, "_STRETCH", stretch)
        train(data, longer(2, 3), tmp_path / str(stretch))
    for stretch in (64, 200):
        assert_same_tensors(tensors(tmp_path / "4096", 3), tensors(tmp_path / str(stretch), 3))


LEAN = [
    ("bfloat16", "adam_row"),
    ("bfloat16", "adam"),
    ("float32", "adam_row"),
    ("bfloat16", "sgd"),
]


def lean(epochs: int, storage: str, optimizer: str, cycle_epochs: int = 3) -> RunConfig:
    return make_config(
        encoder={"dropout": 0.3},
        shortlist={"source": "both", "storage": "float16"},
        classifier={"storage": storage, "optimizer": optimizer, "sgd_rate": 100.0},
        proxy={"labels": 50},
        training={"epochs": epochs, "cycle_epochs": cycle_epochs},
    )


@pytest.mark.parametrize(("storage", "optimizer"), LEAN)
def test_a_lean_run_goes_on_bit_for_bit(
    data: DataSet, tmp_path: Path, storage: str, optimizer: str
) -> None:
    """In the middle of a cycle: two and two epochs are four."""
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(data, lean(4, storage, optimizer), whole)
    for epochs in (2, 4):
        train(data, lean(epochs, storage, optimizer), halves)
    found = tensors(whole, 4)
    rows = found["classifier-00000/weight"]
    assert rows.dtype == (np.int16 if storage == "bfloat16" else np.float32)
    moments = {name for name in found if name.startswith("optimizer-classifier-00000/weight.")}
    assert len(moments) == (0 if optimizer == "sgd" else 2)
    assert_same_tensors(found, tensors(halves, 4))
    runs = RunFolder(whole), RunFolder(halves)
    np.testing.assert_array_equal(runs[0].step_losses(), runs[1].step_losses())
    assert runs[0].lines()[-1]["validation"] == runs[1].lines()[-1]["validation"]
    losses = [line["loss"] for line in runs[0].lines()]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.3


def test_a_lean_run_is_nearly_a_full_one(data: DataSet, tmp_path: Path) -> None:
    for storage in ("bfloat16", "float32"):
        train(data, lean(3, storage, "adam_row", 1), tmp_path / storage)
    losses = [RunFolder(tmp_path / one).step_losses() for one in ("bfloat16", "float32")]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_another_storage_is_another_run(data: DataSet, tmp_path: Path) -> None:
    train(data, lean(1, "bfloat16", "adam_row"), tmp_path)
    with pytest.raises(CheckpointError, match=r"bfloat16 .*the config asks for torch.float32"):
        make_training(data, lean(1, "float32", "adam_row"), tmp_path)


def test_a_given_token_table_is_where_a_run_starts(data: DataSet, tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    np.save(tmp_path / "tokens.npy", table)
    config = make_config(encoder={"tokens": str(tmp_path / "tokens.npy"), "token_scale": 0.5})
    training = make_training(data, config, tmp_path / "run")
    np.testing.assert_array_equal(training.encoder.table.numpy(), np.float32(0.5) * table)
