"""Training on two gloo workers is training on one, and either goes on with the other's run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from groups import Groups
from made import local_ranges, make_config, train
from safetensors.numpy import load_file
from shared_ranges import SharedRanges, serve

from ray_xml.checkpoint import folder_of, load_range, read_manifest
from ray_xml.config import build_config
from ray_xml.errors import TrainingError
from ray_xml.exchange import Exchange
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet
from ray_xml.training import Training


def config_of(epochs: int, negatives: str = "union", solver: str = "irls") -> RunConfig:
    # Neither the batches of 65 and 20 documents nor the 25 columns divide by 2 and 3.
    return make_config(
        encoder={"dim": 25, "dropout": 0.2, "tokens": "random"},
        shortlist={"source": "both"},
        classifier={"negatives": negatives},
        proxy={"solver": solver, "hidden": 16},
        training={"epochs": epochs, "batch_size": 65, "cycle_epochs": 2},
    )


def shortlists(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "shortlists").glob("*")}


def worker(
    address: tuple[str, int], data: DataSet, settings: dict[str, Any], folder: Path
) -> dict[str, bytes]:
    """One worker's run; returns the shortlist files it met. Runs in a group."""
    exchange, run = Exchange(), RunFolder(folder)
    config = build_config(RunConfig, settings, origin="test")
    training = Training(config, data, folder, SharedRanges(address), exchange)
    met: dict[str, bytes] = {}
    for report in training.epochs():
        met |= shortlists(folder)
        if exchange.rank == 0:
            run.append(report.line)
        exchange.barrier()
    return met


def train_group(
    groups: Groups, data: DataSet, config: RunConfig, folder: Path, *, size: int = 2
) -> dict[str, bytes]:
    RunFolder(folder).begin(config)
    address = serve(local_ranges(data, config, 3))
    return groups.run(size, worker, address, data, config.model_dump(mode="json"), folder)[0]


def train_alone(data: DataSet, config: RunConfig, folder: Path) -> dict[str, bytes]:
    RunFolder(folder).begin(config)
    address = serve(local_ranges(data, config, 1))
    return worker(address, data, config.model_dump(mode="json"), folder)


@pytest.mark.parametrize(("negatives", "solver"), [("union", "irls"), ("shortlist", "adam")])
def test_two_workers_are_one(
    groups: Groups, data: DataSet, tmp_path: Path, negatives: str, solver: str
) -> None:
    config = config_of(4, negatives, solver)
    alone, group = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "group")
    expected = train_alone(data, config, alone.path)
    found = train_group(groups, data, config, group.path)
    assert expected.keys() == found.keys() == {"cycle-0000.i32", "cycle-0002.i32"}
    assert expected["cycle-0000.i32"] == found["cycle-0000.i32"]
    # After two epochs the sums of two workers have rounded differently here and there.
    later = [np.frombuffer(one["cycle-0002.i32"], np.int32) for one in (expected, found)]
    assert (later[0] == later[1]).mean() > 0.99
    np.testing.assert_allclose(group.step_losses(), alone.step_losses(), rtol=1e-4)
    for one, other in zip(alone.lines(), group.lines(), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["rate"] == one["rate"]
        assert other["bytes_sent_per_step"] > one["bytes_sent_per_step"] == 0
    last = [run.lines()[-1] for run in (alone, group)]
    assert last[0]["validation"]["P@1"] == pytest.approx(last[1]["validation"]["P@1"], abs=2.0)
    # Two workers fit one score, to the documents of both.
    weights = [read_manifest(run.model())["blend"]["weights"] for run in (alone, group)]
    np.testing.assert_allclose(weights[0], weights[1], atol=0.05)
    assert last[0]["candidate_recall"] == pytest.approx(last[1]["candidate_recall"], abs=1.0)
    written = [run.neighbors_file.read_bytes() for run in (alone, group)]
    assert written[0] == written[1]


def test_two_workers_are_one_without_shortlists(
    groups: Groups, data: DataSet, tmp_path: Path
) -> None:
    config = config_of(4, "random")
    alone, group = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "group")
    assert train_alone(data, config, alone.path) == {}
    assert train_group(groups, data, config, group.path) == {}
    np.testing.assert_allclose(group.step_losses(), alone.step_losses(), rtol=1e-4)
    weights = [read_manifest(run.model())["blend"]["weights"] for run in (alone, group)]
    np.testing.assert_allclose(weights[0], weights[1], atol=0.05)


def bits(run: RunFolder) -> dict[str, bytes]:
    """The bytes of every tensor of the newest checkpoint, and of the losses."""
    newest = folder_of(run.checkpoints, run.epochs_done())
    found = {"losses": run.step_losses().tobytes()}
    for path in newest.glob("*.safetensors"):
        found |= {f"{path.stem}.{name}": one.tobytes() for name, one in load_file(path).items()}
    return found


def test_a_seed_makes_a_run_repeatable(groups: Groups, data: DataSet, tmp_path: Path) -> None:
    found = {}
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        base = config_of(2)
        config = base.model_copy(
            update={"training": base.training.model_copy(update={"seed": seed})}
        )
        train_group(groups, data, config, tmp_path / name)
        found[name] = bits(RunFolder(tmp_path / name))
    assert len(found["first"]) > 20
    assert [name for name, one in found["first"].items() if found["again"][name] != one] == []
    for name in ("losses", "classifier-00000.weight", "tokens-00001.table"):
        assert found["other"][name] != found["first"][name]


def stores_alike(
    data: DataSet, settings: dict[str, Any], folder: Path, address: tuple[str, int]
) -> str:
    """What one worker of two hears where the other's numbers cannot be stored; runs in a group."""
    config = build_config(RunConfig, settings, origin="test")
    training = Training(config, data, folder, SharedRanges(address), Exchange())
    training.state.epoch, training.state.step_losses = 1, np.ones(2, np.float32)
    if training.exchange.rank == 1:
        training.classifier.weight[0, 0] = float("nan")
    try:
        training._store(with_proxies=False)
    except TrainingError as error:
        return str(error)
    return ""


def test_workers_fail_alike_where_one_cannot_store(
    groups: Groups, data: DataSet, tmp_path: Path
) -> None:
    config = config_of(2)
    RunFolder(tmp_path).begin(config)
    address = serve(local_ranges(data, config, 1))
    told = groups.run(2, stores_alike, data, config.model_dump(mode="json"), tmp_path, address)
    assert told[0] == told[1]
    assert "classifier.weight holds numbers that are not finite" in told[0]
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("optimizer", ["adam_row", "sgd"])
def test_two_workers_are_one_with_bfloat16_rows(
    groups: Groups, data: DataSet, tmp_path: Path, optimizer: str
) -> None:
    """Rows are rounded by their number, whoever holds them."""
    base = config_of(4)
    lean = {"storage": "bfloat16", "optimizer": optimizer, "sgd_rate": 100.0}
    config = base.model_copy(update={"classifier": base.classifier.model_copy(update=lean)})
    alone, group = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "group")
    expected = train_alone(data, config, alone.path)
    found = train_group(groups, data, config, group.path)
    assert expected["cycle-0000.i32"] == found["cycle-0000.i32"]
    # A sum that is rounded otherwise may turn a weight's rounding.
    np.testing.assert_allclose(group.step_losses(), alone.step_losses(), rtol=5e-3)
    rows = [load_range(run.model(), "classifier", "weight", (0, 80)) for run in (alone, group)]
    assert np.abs(rows[0] - rows[1]).mean() < 0.005 * np.abs(rows[0]).mean()


def test_a_run_changes_its_number_of_workers(groups: Groups, data: DataSet, tmp_path: Path) -> None:
    whole, mixed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "mixed")
    train(data, config_of(6), whole.path)
    train_group(groups, data, config_of(2), mixed.path, size=2)
    train(data, config_of(4), mixed.path)
    train_group(groups, data, config_of(6), mixed.path, size=3)
    np.testing.assert_allclose(mixed.step_losses(), whole.step_losses(), rtol=1e-3)
    assert [line["epoch"] for line in mixed.lines()] == [1, 2, 3, 4, 5, 6]


def loses(folder: Path, seen_by: list[int]) -> bool:
    """Whether a worker holds a file for lost that some of the workers see; runs in a group."""
    exchange = Exchange()
    place = folder / ("here" if exchange.rank in seen_by else "nowhere")
    worker = SimpleNamespace(exchange=exchange, device=torch.device("cpu"))
    return Training._lost(cast("Training", worker), place)


def test_a_file_that_one_worker_misses_is_lost_for_all(groups: Groups, tmp_path: Path) -> None:
    """Or one would search while the others train, each waiting for the other."""
    (tmp_path / "here").touch()
    assert groups.run(2, loses, tmp_path, [0, 1]) == [False, False]
    for seen_by in ([0], [1], []):
        assert groups.run(2, loses, tmp_path, seen_by) == [True, True]
    assert groups.run(1, loses, tmp_path, [0]) == [False]


def loaded(data: DataSet, settings: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """What one worker holds after reading a checkpoint; runs in a group."""
    config = build_config(RunConfig, settings, origin="test")
    ranges = local_ranges(data, config, 1)
    training = Training(config, data, folder, ranges, Exchange())
    encoder, classifier = training.encoder, training.classifier
    return {
        "tokens/table": encoder.table.numpy(),
        "tokens/first": encoder.table_adam.first.numpy(),
        "encoder/weight": encoder.weight.detach().numpy(),
        "classifier/weight": classifier.weight.numpy(),
        "classifier/bias second": classifier.bias_adam.second.numpy(),
        "steps": np.array([encoder.table_adam.steps, classifier.weight_adam.steps]),
    }


def test_a_checkpoint_of_two_workers_is_read_by_any_number(
    groups: Groups, data: DataSet, tmp_path: Path
) -> None:
    config = config_of(2)
    train_group(groups, data, config, tmp_path)
    folder = RunFolder(tmp_path).model()
    assert len(list(folder.glob("tokens-*"))) == 2
    whole = {
        "tokens/table": load_range(folder, "tokens", "table", (0, 25), axis=1),
        "tokens/first": load_range(folder, "optimizer-tokens", "table.first", (0, 25), axis=1),
        "encoder/weight": load_range(folder, "encoder", "weight", (0, 25)),
        "classifier/weight": load_range(folder, "classifier", "weight", (0, 80)),
        "classifier/bias second": load_range(
            folder, "optimizer-classifier", "bias.second", (0, 80)
        ),
        "steps": np.array([18, 18], np.float32),  # 2 epochs of ⌈540 / 65⌉ steps
    }
    for size in (1, 2, 3):
        parts = groups.run(size, loaded, data, config.model_dump(mode="json"), tmp_path)
        for name, value in whole.items():
            pieces = [part[name] for part in parts]
            if name.startswith(("tokens", "classifier")):
                together = np.concatenate(pieces, 1 if name.startswith("tokens") else 0)
                np.testing.assert_array_equal(together, value, err_msg=name)
            else:
                for piece in pieces:
                    np.testing.assert_array_equal(piece, value, err_msg=name)
