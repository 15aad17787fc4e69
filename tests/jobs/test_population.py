"""A population whose driver is killed in the middle, with room for one run at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import make_config
from processes import Command, wait_for

from ray_xml.config import dump_config, load_config
from ray_xml.evaluation import evaluate
from ray_xml.predictor import Predictor
from ray_xml.run_config import RunConfig
from ray_xml.search_log import DONE, REPLACED, SearchLog
from ray_xml.store import DataSet
from ray_xml.tune_folder import TuneFolder
from ray_xml.tune_report import best_trial

EPOCHS = 6
SECONDS = 600.0


def test_a_killed_population_goes_on(data: DataSet, tmp_path: Path) -> None:
    config = make_config(
        neighbors={"size": 0},  # without it the values matter
        training={"epochs": EPOCHS, "rate": 0.01},
        resources={"workers": 1, "label_shards": 1},
        tune={
            # The config as it stands is by far the best: it is taken over, and changed.
            "space": {
                "training.rate": {"log_uniform": [1e-6, 0.02]},
                "encoder.dropout": {"choice": [0.1, 0.2, 0.3]},
            },
            "trials": 3, "concurrent": 1, "scheduler": "pbt", "interval": 2, "resample": 0,
        },
    )  # fmt: skip
    config = config.model_copy(update={"data": str(data.path), "run": "search"})
    (tmp_path / "config.yaml").write_text(dump_config(config))
    folder = TuneFolder(tmp_path / "search")

    def forked() -> bool:
        return len(folder.trial(3).lines()) > 2

    killed = Command("tune", "config.yaml", folder=tmp_path)
    try:
        assert wait_for(lambda: forked() or not killed.running(), SECONDS), "nothing in time"
        assert killed.running(), killed.end()
        killed.kill()
        killed.end()
        assert wait_for(lambda: not killed.offspring(), 120), killed.offspring()
    finally:
        killed.clean_up()
    before = SearchLog(folder.path)
    assert before.compared() == {2}
    text = before.path.read_text()

    command = Command("tune", "config.yaml", "--resume", folder=tmp_path)
    try:
        status, out, err = command.end(SECONDS)
    finally:
        command.clean_up()
    assert status == 0, err
    assert "Traceback" not in err
    assert SearchLog(folder.path).path.read_text().startswith(text)
    assert "1 trial at a time" in err
    assert err.count("with the weights of") == 1

    log = SearchLog(folder.path)
    assert log.compared() == {2, 4}
    trials = log.trials()
    assert sum(one.status == DONE for one in trials) == 3
    assert len(trials) == 3 + sum(one.status == REPLACED for one in trials) >= 4
    for one in trials:
        lines = folder.trial(one.number).lines()
        assert [line["epoch"] for line in lines] == list(range(1, one.epochs + 1))
        # What went on had its parent's epochs behind it, and trained with its own values.
        if one.parent is not None:
            behind = folder.trial(one.parent).lines()[: one.since]
            assert lines[: one.since] == behind
            assert {line["rate"] for line in lines[one.since :]} == {
                one.parameters["training.rate"]
            }
            assert (
                folder.trial(one.number).config().encoder.dropout
                == (one.parameters["encoder.dropout"])
            )
        points = {point.epoch: point.value for point in one.points}
        assert list(points) == list(range(one.since + 1, one.epochs + 1))
        values = [line["validation"]["nDCG@5"] for line in lines[one.since :]]
        assert values == list(points.values())
    trained = sum(len(one.points) for one in trials)
    assert trained == 3 * EPOCHS

    best = best_trial(trials)
    made = load_config(RunConfig, folder.path / "best.yaml")
    assert made.training.rate == best.parameters["training.rate"]
    assert made.training.epochs == EPOCHS
    model = folder.trial(best.number).path
    assert f"the best run: ray-xml evaluate {model}" in out
    assert folder.trial(best.number).model().name == f"epoch-{best.best_epoch:04d}"
    found = evaluate(Predictor.load(model), data, "test")
    assert found["nDCG@5"] > 30
    assert found["nDCG@5"] == pytest.approx(best.best, abs=15)
