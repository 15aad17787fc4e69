"""The log of a search and what is made of it: table, comparison, best.yaml, picture."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made import make_config

from ray_xml.config import load_config
from ray_xml.errors import ConfigError, TrainingError
from ray_xml.run_config import RunConfig
from ray_xml.search_log import DONE, FAILED, REPLACED, RUNNING, STOPPED, Move, SearchLog
from ray_xml.store import DataSet
from ray_xml.tune_folder import TuneFolder
from ray_xml.tune_report import best_trial, comparison, table, write_results
from ray_xml.tune_space import tuned

SPACE = {
    "training.rate": {"log_uniform": [0.001, 0.1]},
    "encoder.tokens": {"choice": ["svd", "random"]},
}
CONFIG = make_config(
    tune={"space": SPACE, "trials": 4}, training={"epochs": 4}, resources={"workers": 1}
)


def rates(number: int) -> dict[str, object]:
    return {"training.rate": 0.005 * (number + 1), "encoder.tokens": "svd"}


def made_log(folder: Path) -> SearchLog:
    """Trial 2 is best, though it was stopped; trial 3 failed."""
    log = SearchLog(folder)
    for number, values in enumerate([[50.0, 52.0, 51.0, 53.5], [40.0], [54.25, 57.0], []]):
        log.start(number, rates(number))
        for epoch, value in enumerate(values, 1):
            log.report(number, epoch, value, 2.5 * epoch)
    for number, status in enumerate([DONE, STOPPED, STOPPED]):
        log.end(number, status)
    log.end(3, FAILED, "error: a <bad> loss")
    return log


def test_a_log_is_what_was_written(tmp_path: Path) -> None:
    log = made_log(tmp_path)
    with open(log.path, "a") as file:
        file.write('{"event": "report", "trial": 0, "at"')  # cut by a full disk
    again = SearchLog(tmp_path)
    assert again.trials() == log.trials()
    assert again.history() == log.history()
    assert [one.best for one in again.trials()] == [53.5, 40.0, 57.0, None]
    assert [one.epochs for one in again.trials()] == [4, 1, 2, 0]
    assert again.trial(0).best_within(3) == 52.0


def test_a_trial_that_goes_on_tells_nothing_twice(tmp_path: Path) -> None:
    log = SearchLog(tmp_path)
    log.start(0, {})
    assert log.report(0, 1, 1.0, 1.0)
    log = SearchLog(tmp_path)
    log.start(0, {})
    assert not log.report(0, 1, 1.0, 1.0)
    assert log.report(0, 2, 2.0, 2.0)
    assert [json.loads(line)["event"] for line in log.path.read_text().splitlines()] == [
        "start",
        "report",
        "report",
    ]
    log.end(0, FAILED, "lost")
    log.start(0, {})
    assert (SearchLog(tmp_path).trial(0).status, log.trial(0).reason) == (RUNNING, "")


def test_time_goes_on_where_it_stopped(tmp_path: Path) -> None:
    event = {"event": "start", "trial": 0, "parameters": {}, "at": 1000.0}
    (tmp_path / "search.jsonl").write_text(json.dumps(event) + "\n")
    log = SearchLog(tmp_path)
    log.report(0, 1, 1.0, 1.0)
    assert 1000.0 <= log.trial(0).points[0].at < 1060.0


def test_the_table_ranks_all_trials(tmp_path: Path) -> None:
    lines = table(made_log(tmp_path).trials(), "nDCG@5").splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["trial", "2", "0", "1", "3"]
    assert lines[1].split() == [
        "2", "57.00", "2", "5", "stopped", "training.rate=0.015", "encoder.tokens=svd",
    ]  # fmt: skip
    assert lines[2].endswith("done     (the config as it stands)")
    assert lines[5] == "trial 3 failed: error: a <bad> loss"


def test_the_comparison_is_at_equal_epochs(tmp_path: Path) -> None:
    told = comparison(made_log(tmp_path).trials(), "nDCG@5")
    assert "after 2 epochs each: nDCG@5 57.00 with trial 2, 52.00 with the config as it" in told
    assert "(+5.00)" in told
    assert "at their best: 57.00 (of 2 epochs, 5 s) and 53.50 (of 4 epochs, 10 s)" in told
    assert "no trial beat" in comparison(SearchLog(tmp_path).trials()[:2], "nDCG@5")


def test_a_search_without_a_value_says_why(tmp_path: Path) -> None:
    log = SearchLog(tmp_path)
    log.start(0, {})
    log.end(0, FAILED, "error: no space left")
    with pytest.raises(TrainingError, match="trial 0: error: no space left"):
        best_trial(log.trials())


def test_the_best_config_trains_as_it_is(tmp_path: Path, data: DataSet) -> None:
    config = CONFIG.model_copy(update={"data": str(data.path), "run": str(tmp_path)})
    write_results(tmp_path, config, made_log(tmp_path))
    text = (tmp_path / "best.yaml").read_text()
    assert "Trial 2" in text
    assert "nDCG@5 57.00" in text
    made = load_config(RunConfig, tmp_path / "best.yaml")
    expected = tuned(config, rates(2))
    assert made == expected.model_copy(update={"run": ""})
    assert made.training.rate == 0.015
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["training.rate"] for row in rows] == ["0.005", "0.01", "0.015", "0.02"]
    assert [row["status"] for row in rows] == [DONE, STOPPED, STOPPED, FAILED]


def made_population(folder: Path) -> SearchLog:
    """Trial 1 is behind after epoch 2 and trial 3 goes on from 0, and 4 from 3 after epoch 3."""
    log = SearchLog(folder)
    for number, values in enumerate([[50.0, 52.0], [40.0, 41.0], [49.0, 51.0]]):
        log.start(number, rates(number))
        for epoch, value in enumerate(values, 1):
            log.report(number, epoch, value, float(epoch))
    log.exploit(2, [Move(3, replaces=1, parent=0, parameters=rates(3))])
    log.start(3, {})
    log.report(3, 3, 58.0, 3.0)
    log.end(2, FAILED, "error: not finite")
    log.exploit(3, [Move(4, replaces=2, parent=3, parameters=rates(4))])
    log.report(4, 4, 60.25, 4.0)
    return log


def test_a_population_s_log_is_what_was_written(tmp_path: Path) -> None:
    log = made_population(tmp_path)
    again = SearchLog(tmp_path)
    assert again.trials() == log.trials()
    assert again.compared() == log.compared() == {2, 3}
    assert [one.status for one in again.trials()] == [RUNNING, REPLACED, REPLACED, RUNNING, RUNNING]
    assert [(one.parent, one.since) for one in again.trials()][3:] == [(0, 2), (3, 3)]
    assert SearchLog(tmp_path).trial(3).parameters == rates(3)  # as the move has it
    log.exploit(4, [])
    assert SearchLog(tmp_path).compared() == {2, 3, 4}
    with open(log.path, "a") as file:
        file.write('{"event": "exploit", "epoch": 5, "at": 1.0, "moves": [')
    assert SearchLog(tmp_path).compared() == {2, 3, 4}


def test_the_best_of_a_population_is_a_schedule(tmp_path: Path, data: DataSet) -> None:
    tune = CONFIG.tune.model_copy(update={"scheduler": "pbt"})
    config = CONFIG.model_copy(update={"data": str(data.path), "tune": tune})
    told = write_results(tmp_path, config, made_population(tmp_path))
    lines = (tmp_path / "best.yaml").read_text().splitlines()
    assert lines[0].startswith("# Trial 4 of a search over 2 keys: nDCG@5 60.25 on validation")
    assert "The run is in trials/004" in lines[2]
    assert lines[3:6] == [
        "#   epochs 1 to 2 (trial 0): training.rate: 0.005, encoder.tokens: svd",
        "#   epochs 3 to 3 (trial 3): training.rate: 0.02, encoder.tokens: svd",
        "#   epochs 4 to 4 (trial 4): training.rate: 0.025, encoder.tokens: svd",
    ]
    assert load_config(RunConfig, tmp_path / "best.yaml").training.rate == 0.025
    assert f"the best run: ray-xml evaluate {tmp_path / 'trials' / '004'}" in told
    (row,) = [line for line in told.splitlines() if line.split()[:2] == ["4", "60.25"]]
    assert row.endswith("(from trial 3 after epoch 3)")
    assert "trial 2 failed: error: not finite" in told
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["parent"], row["since"]) for row in rows][2:] == [("", ""), ("0", "2"), ("3", "3")]


def test_the_picture_shows_every_trial_with_a_value(tmp_path: Path, data: DataSet) -> None:
    write_results(tmp_path, CONFIG, made_log(tmp_path))
    root = ElementTree.parse(tmp_path / "trials.svg").getroot()
    names = {"s": "http://www.w3.org/2000/svg"}
    titles = [one.text for one in root.findall(".//s:title", names)]
    assert sorted(titles) == sorted(
        2 * ["trial 0: 53.50, done", "trial 1: 40.00, stopped", "trial 2: 57.00, stopped"]
    )
    assert len(root.findall(".//s:circle", names)) == 7
    texts = {one.text for one in root.findall(".//s:text", names)}
    assert {"training.rate", "encoder.tokens", "best nDCG@5"} <= texts
    for line in root.findall(".//s:polyline", names):
        for pair in line.attrib["points"].split():
            x, y = (float(number) for number in pair.split(","))
            assert 0 <= x <= 900
            assert 0 <= y <= 740


def test_a_folder_holds_one_search(tmp_path: Path) -> None:
    folder = TuneFolder(tmp_path / "search")
    folder.path.mkdir()
    with pytest.raises(ConfigError, match="leave --resume out"):
        folder.begin(CONFIG, resume=True)
    folder.begin(CONFIG, resume=False)
    with pytest.raises(ConfigError, match="--resume goes on"):
        folder.begin(CONFIG, resume=False)
    folder.begin(CONFIG, resume=True)
    more = CONFIG.model_copy(update={"tune": CONFIG.tune.model_copy(update={"trials": 9})})
    folder.begin(more, resume=True)
    population = more.model_copy(update={"tune": more.tune.model_copy(update={"scheduler": "pbt"})})
    pbt = TuneFolder(tmp_path / "population")
    pbt.path.mkdir()
    pbt.begin(population, resume=False)
    larger = population.tune.model_copy(update={"trials": 12})
    with pytest.raises(ConfigError, match=r"tune\.trials: 9 → 12"):
        pbt.begin(population.model_copy(update={"tune": larger}), resume=True)
    for section, key, value in (
        ("tune", "seed", 5), ("training", "epochs", 9), ("encoder", "dim", 7),
    ):  # fmt: skip
        changed = getattr(CONFIG, section).model_copy(update={key: value})
        with pytest.raises(ConfigError, match=rf"other settings.*{section}.{key}"):
            folder.begin(CONFIG.model_copy(update={section: changed}), resume=True)
    other = TuneFolder(tmp_path)
    with pytest.raises(ConfigError, match="holds no search"):
        other.begin(CONFIG, resume=False)


def test_a_trial_gets_a_run_folder_and_shares_the_cache(tmp_path: Path) -> None:
    folder = TuneFolder(tmp_path)
    made = folder.trial_config(CONFIG, 7, rates(7), 0.9, 4)
    assert made.run == str(tmp_path / "trials" / "007")
    assert made.resources.cache == str(tmp_path / "cache")
    assert made.resources.cpus_per_worker == 0.9
    assert made.training.rate == pytest.approx(0.04)
    assert made.training.epochs == 4
    # The first is the config as it stands, whatever it was that it stands for.
    first = folder.trial_config(CONFIG, 0, {"training.rate": 0.09}, 0.9, 3)
    assert first.training.rate == CONFIG.training.rate
