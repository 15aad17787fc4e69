"""Population-based training against a slow obvious simulation of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import make_config
from small_population import FIRST, SPACE, Driver, KilledError, settings_of

from ray_xml.config import build_config
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig
from ray_xml.search_log import DONE, FAILED, REPLACED, Point, SearchLog, TrialRecord
from ray_xml.store import DataSet
from ray_xml.tune_config import Domain
from ray_xml.tune_pbt import CHANGEABLE, Exploit, Train, moves, next_step, perturbed
from ray_xml.tune_space import check_space, check_space_data


def events(log: SearchLog) -> list[str]:
    """The log's lines without their times."""
    return [line.split('"at"')[0] for line in log.path.read_text().splitlines()]


@pytest.mark.parametrize("trials", [2, 3, 6, 9])
@pytest.mark.parametrize(("interval", "total"), [(1, 4), (2, 6), (2, 7), (3, 4)])
def test_the_budget_is_the_population_times_the_epochs(
    tmp_path: Path, trials: int, interval: int, total: int
) -> None:
    driver = Driver(settings_of(trials=trials), tmp_path, interval=interval, total=total)
    log = driver.run()
    assert len(driver.trained) == len(set(driver.trained)) == trials * total
    assert log.compared() == set(range(interval, total, interval))
    ended = [one for one in log.trials() if one.status == DONE]
    assert len(ended) == trials
    assert all(one.epochs == total for one in ended)
    replaced = [one for one in log.trials() if one.status == REPLACED]
    assert len(log.trials()) == trials + len(replaced)
    # The config as it stands is a whole run.
    assert [point.epoch for point in log.trial(0).points] == list(range(1, total + 1))
    assert log.trial(0).parameters == FIRST


def test_values_stay_in_their_domains(tmp_path: Path) -> None:
    settings = settings_of(trials=8, quantile=0.5)
    log = Driver(settings, tmp_path, interval=1, total=40).run()
    made = [one for one in log.trials() if one.number > 0]
    assert len(made) > 60
    for one in made:
        for key, domain in settings.space.items():
            assert domain.place(one.parameters[key]) is not None, (key, one.parameters)
            assert isinstance(one.parameters[key], int) == (key in INTEGERS)
    for key in SPACE:
        assert len({one.parameters[key] for one in made}) > 3


INTEGERS = {"classifier.random_negatives", "training.batch_size"}


def test_it_goes_where_values_are_good(tmp_path: Path) -> None:
    """The best of a population is better than the best of as many runs that keep their values."""
    gained = []
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        driver = Driver(settings_of(seed=seed, trials=8), folder, interval=2, total=24)
        log = driver.run()
        kept = max(24 * (1 - log.trial(number).parameters["training.rate"]) for number in range(8))
        gained.append(max(one.best or 0.0 for one in log.trials()) - kept)
        ended = [one.parameters["training.rate"] for one in log.trials() if one.status == DONE]
        begun = [log.trial(number).parameters["training.rate"] for number in range(8)]
        assert np.median(ended) < np.median(begun)
    assert np.mean(gained) > 0


def test_seeds_tell(tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        driver = Driver(settings_of(seed=seed), tmp_path / name, interval=2, total=8)
        found.append(events(driver.run()))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("bad", [2.0, 0.3])
def test_a_killed_search_goes_on_as_if_nothing_had_been(tmp_path: Path, bad: float) -> None:
    (tmp_path / "whole").mkdir()
    settings = settings_of(trials=4, quantile=0.5)
    whole = Driver(settings, tmp_path / "whole", interval=1, total=4, bad=bad).run()
    assert any(one.parent is not None for one in whole.trials())
    for count in (1, 2, 3, 5, 8, 13):
        folder = tmp_path / str(count)
        folder.mkdir()
        trained = lives = 0
        log = None
        while log is None:  # killed again and again
            driver = Driver(settings, folder, interval=1, total=4, events=count, bad=bad)
            try:
                log = driver.run()
            except KilledError:
                lives += 1
            trained += len(driver.trained)
            assert lives < 40
        assert lives > 0
        for one, expected in zip(log.trials(), whole.trials(), strict=True):
            assert (one.parameters, one.parent) == (expected.parameters, expected.parent)
            assert (one.since, one.status) == (expected.since, expected.status)
            values = [point.value for point in one.points]
            assert values == [point.value for point in expected.points]
        assert trained == sum(len(one.points) for one in log.trials())


def test_what_fails_is_replaced_and_parent_of_nobody(tmp_path: Path) -> None:
    settings = settings_of(trials=6)
    log = Driver(settings, tmp_path, interval=1, total=3, bad=0.04).run()
    failed = [one.number for one in log.trials() if one.reason]
    assert len(failed) > 2  # more than the quantile, and the config as it stands
    assert log.trial(0).status == FAILED
    assert all(log.trial(number).status == REPLACED for number in failed if number in range(1, 6))
    assert not {one.parent for one in log.trials()} & set(failed)


def test_a_population_of_failures_ends(tmp_path: Path) -> None:
    log = Driver(settings_of(), tmp_path, interval=1, total=3, bad=0.0).run()
    assert [one.status for one in log.trials()] == [FAILED] * 6


def record(number: int, *values: float, **keys: Any) -> TrialRecord:
    points = [Point(epoch, value, 1.0, 1.0) for epoch, value in enumerate(values, 1)]
    return TrialRecord(number, FIRST, points=points, **keys)


def test_those_behind_take_over_those_in_front() -> None:
    settings = settings_of(trials=8, quantile=0.25)
    members = [record(number, float(number)) for number in range(8)]
    found = moves(settings, 1, members, 8)
    assert [(one.number, one.replaces) for one in found] == [(8, 1), (9, 2)]  # never 0
    assert {one.parent for one in found} <= {6, 7}
    equal = [record(number, 5.0) for number in range(8)]
    assert moves(settings, 1, equal, 8) == []


def test_moves_against_counting_who_is_better() -> None:
    random = np.random.default_rng(3)
    for case in range(200):
        size, quantile = int(random.integers(2, 12)), float(random.choice([0.1, 0.25, 0.5]))
        settings = settings_of(trials=size, quantile=quantile, seed=case)
        values = random.integers(0, 20, size).astype(float)
        failed = random.random(size) < 0.15
        members = [
            record(number, *([] if failed[number] else [values[number]])) for number in range(size)
        ]
        score = np.where(failed, -1.0, values)
        many = max(1, int(size * quantile))
        found = {one.replaces: one.parent for one in moves(settings, 1, members, size)}
        assert 0 not in found
        for number in range(size):
            better = sum(
                score[other] > score[number] or (score[other] == score[number] and other < number)
                for other in range(size)
            )
            worse = size - 1 - better - (score[0] < score[number])  # of those that may go
            if number in found:
                parent = found[number]
                assert score[parent] > score[number]
                assert sum(score > score[parent]) < many
                assert failed[number] or worse < many
            elif number and failed[number]:
                assert failed.all()


def test_half_of_a_population_can_be_in_front() -> None:
    settings = settings_of(trials=4, quantile=0.5)
    members = [record(number, value) for number, value in enumerate((1.0, 2.0, 3.0, 4.0))]
    found = moves(settings, 1, members, 4)
    assert [one.replaces for one in found] == [1]
    assert found[0].parent in (2, 3)


def test_a_population_trains_in_steps() -> None:
    settings = settings_of(trials=2)
    assert next_step(settings, 2, 5, [], ()) == Train([0, 1], 2)
    there = [record(0, 1.0, 2.0), record(1, 1.0)]
    assert next_step(settings, 2, 5, there, ()) == Train([1], 2)
    assert next_step(settings, 2, 5, there, (), {1}) == Exploit(2, moves(settings, 2, there, 2))
    replaced = [record(0, 1.0, 2.0), record(1, 1.0, status=REPLACED), record(2, since=2, parent=0)]
    assert next_step(settings, 2, 5, replaced, {2}) == Train([0, 2], 4)


def domain(**kind: Any) -> Domain:
    return build_config(Domain, kind, origin="test")


@pytest.mark.parametrize(
    ("kind", "value", "down", "up"),
    [
        ({"uniform": [0.1, 0.5]}, 0.2, 0.16, 0.24),
        ({"uniform": [0.1, 0.5]}, 0.45, 0.36, 0.5),
        ({"log_uniform": [0.001, 0.01]}, 0.0011, 0.001, 0.00132),
        ({"log_uniform": [0.001, 0.01]}, 7.0, 0.01, 0.01),  # the config as it stands may
        ({"integer": [1, 9]}, 5, 4, 6),
        ({"integer": [1, 9]}, 2, 1, 3),  # 2.4 is 2 again
        ({"integer": [1, 9]}, 9, 7, 9),
        ({"choice": [32, 64, 128]}, 64, 32, 128),
        ({"choice": [32, 64, 128]}, 32, 64, 64),
        ({"choice": [32, 64, 128]}, 128, 64, 64),
        ({"choice": [32, 64, 128]}, 16, None, None),
        ({"integer": [1, 9]}, None, None, None),
    ],
)
def test_perturbed_by_hand(kind: dict[str, Any], value: Any, down: Any, up: Any) -> None:
    one = domain(**kind)
    assert (perturbed(one, value, up=False), perturbed(one, value, up=True)) == (down, up)


def config_of(
    space: dict[str, Any], training: dict[str, Any] | None = None, **tune: Any
) -> RunConfig:
    tree = {"space": space, "scheduler": "pbt", "trials": 4, **tune}
    return make_config(tune=tree, training={"epochs": 4, **(training or {})})


RATE = {"training.rate": {"log_uniform": [0.001, 0.1]}}


@pytest.mark.parametrize(
    ("space", "training", "tune", "said"),
    [
        ({"encoder.dim": {"integer": [8, 16]}}, {}, {}, "'encoder.dim' cannot change in the mid"),
        ({"encoder.tokens": {"choice": ["svd", "random"]}}, {}, {}, "these can: training.rate, "),
        ({"training.cycle_epochs": {"integer": [1, 2]}}, {}, {}, "cannot change"),
        (RATE, {}, {"searcher": "optuna"}, "tune.searcher=random"),
        (RATE, {"schedule": "linear"}, {}, "training.schedule=constant"),
        (RATE, {"cycle_epochs": 2}, {"interval": 3}, "no multiple of training.cycle_epochs=2"),
    ],
)
def test_what_a_population_cannot_do_is_refused(
    space: dict[str, Any], training: dict[str, Any], tune: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_space(config_of(space, training, **tune))


def test_a_population_must_be_compared_once(data: DataSet) -> None:
    check_space(config_of(RATE, interval=4))
    with pytest.raises(ConfigError, match="would never compare its population: of 4 epochs"):
        check_space_data(config_of(RATE, interval=4), data)
    check_space_data(config_of(RATE, interval=3), data)


def test_every_key_that_may_change_is_one() -> None:
    numbers = {key: {"choice": [1, 2]} for key in CHANGEABLE if key != "encoder.dropout"}
    check_space(config_of({**numbers, "encoder.dropout": {"choice": [0.1, 0.2]}}))
