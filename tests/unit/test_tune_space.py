"""The tune section: domains, what may be searched, and the config of a trial."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from made import make_config

from ray_xml.config import build_config, dump_config
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig, differences
from ray_xml.store import DataSet
from ray_xml.tune_config import Domain
from ray_xml.tune_space import (
    check_space,
    check_space_data,
    default_parameters,
    grace_epochs,
    tuned,
)
from ray_xml.yaml_text import parse_yaml

RATE = {"training.rate": {"log_uniform": [0.001, 0.1]}}


def config_of(space: dict[str, Any], **tune: Any) -> RunConfig:
    return make_config(tune={"space": space, **tune}, training={"epochs": 4})


def domain(**kind: Any) -> Domain:
    return build_config(Domain, kind, origin="test")


def test_values_stay_in_their_domain_and_reach_its_ends() -> None:
    places = np.linspace(0, 1, 4001)[:-1]
    for one in (
        domain(uniform=[0.1, 0.5]),
        domain(log_uniform=[0.0001, 0.1]),
        domain(integer=[2, 5]),
        domain(log_integer=[1, 64]),
        domain(choice=["a", None, 3, 0.5, True]),
    ):
        values = [one.value(place) for place in places]
        if one.choice is not None:
            assert set(map(repr, values)) == set(map(repr, one.choice))
            continue
        low, high = one.range
        assert min(values) == pytest.approx(low, rel=0.01)
        assert max(values) == pytest.approx(high, rel=0.01)
        assert all(low <= value <= high for value in values)
        assert all(isinstance(value, int) for value in values) == one.whole


def test_logarithmic_values_are_even_in_their_logarithm() -> None:
    values = [domain(log_uniform=[0.001, 0.1]).value(place) for place in (0.0, 0.25, 0.5, 0.75)]
    assert np.diff(np.log10(values)) == pytest.approx([0.5] * 3, abs=1e-3)


def test_integers_are_drawn_equally_often() -> None:
    drawn = [domain(integer=[2, 5]).value(place) for place in np.arange(0.005, 1, 0.01)]
    assert [drawn.count(value) for value in (2, 3, 4, 5)] == [25] * 4


def test_a_place_is_the_inverse_of_a_value() -> None:
    for one in (domain(uniform=[0.1, 0.5]), domain(log_uniform=[0.0001, 0.1])):
        for place in (0.1, 0.5, 0.9):
            assert one.place(one.value(place)) == pytest.approx(place, abs=1e-3)
        assert one.place(7.0) is None
        assert one.place("auto") is None
    assert domain(choice=["svd", "random"]).place("random") == 0.75


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({}, "exactly one of"),
        ({"uniform": [0, 1], "choice": [1, 2]}, "exactly one of"),
        ({"uniform": [1, 0]}, "low < high"),
        ({"log_uniform": [0, 1]}, "low must be > 0"),
        ({"uniform": [0, math.inf]}, "finite number"),
        ({"choice": [1]}, "two values"),
        ({"choice": [1, 1]}, "twice"),
        ({"integer": [1.5, 3]}, "integer"),
        ({"unifrom": [0, 1]}, "did you mean 'uniform'"),
    ],
)
def test_a_domain_that_is_none_is_refused(kind: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        domain(**kind)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "tune.space is empty"),
        ({"training.rat": {"uniform": [0.1, 1]}}, "did you mean 'training.rate'"),
        ({"encoder": {"choice": [1, 2]}}, "whole section"),
        ({"training.rate": {"uniform": [-1, 1]}}, "training.rate.*greater than 0"),
        ({"encoder.dropout": {"choice": [0.1, 1.5]}}, "encoder.dropout"),
        ({"encoder.dim": {"uniform": [1.5, 9.5]}}, "encoder.dim"),
        ({"training.validation": {"uniform": [0.1, 0.2]}}, "cannot be searched over"),
        ({"training.seed": {"integer": [0, 9]}}, "cannot be searched over"),
        ({"training.epochs": {"integer": [2, 9]}}, "set it beside tune"),
        ({"resources.workers": {"integer": [1, 2]}}, "do not change the model"),
        ({"dataset.name": {"choice": ["a", "b"]}}, "cannot be searched over"),
        ({"tune.trials": {"integer": [2, 9]}}, "over itself"),
        ({"training.cycle_epochs": {"integer": [1, 2]}}, "tune.scheduler=none"),
    ],
)
def test_a_space_that_no_run_takes_is_refused(space: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_space(config_of(space))


def test_what_a_run_takes_is_accepted() -> None:
    check_space(config_of({**RATE, "encoder.tokens": {"choice": ["svd", "random"]}}))
    cycles = {"training.cycle_epochs": {"integer": [1, 2]}}
    check_space(config_of(cycles, scheduler="none"))


def test_a_search_needs_something_to_compare_by() -> None:
    with pytest.raises(ConfigError, match=r"training\.validation=0 leaves no documents"):
        check_space(make_config(tune={"space": RATE}, training={"validation": 0}))
    with pytest.raises(ConfigError, match="metric 'P@7' is none of"):
        check_space(config_of(RATE, metric="P@7"))


def test_values_must_fit_the_data_set(data: DataSet) -> None:
    check_space_data(config_of(RATE), data)
    size = {"shortlist.size": {"integer": [10, 200]}}
    with pytest.raises(ConfigError, match=r"tune.space: shortlist.size=200: .*80 labels"):
        check_space_data(config_of(size), data)


def test_asha_must_have_an_epoch_to_stop_at(data: DataSet) -> None:
    late = make_config(tune={"space": RATE}, training={"epochs": 4, "cycle_epochs": 4})
    with pytest.raises(ConfigError, match="could stop no run early"):
        check_space_data(late, data)
    assert grace_epochs(make_config(tune={"grace": 1}, training={"cycle_epochs": 3})) == 3


def test_a_trial_trains_with_its_parameters_and_no_search() -> None:
    config = config_of({**RATE, "encoder.dropout": {"choice": [0.1, 0.9]}}, metric="PSP@5")
    made = tuned(config, {"training.rate": 0.02, "encoder.dropout": 0.9})
    assert (made.training.rate, made.encoder.dropout) == (0.02, 0.9)
    assert made.training.metric == "PSP@5"
    assert made.tune.space == {}
    assert default_parameters(config) == {"training.rate": 0.005, "encoder.dropout": 0.2}


def test_training_ignores_the_section() -> None:
    plain, with_space = make_config(), make_config(tune={"space": RATE})
    assert differences(plain, with_space) == []
    assert plain.identity() == with_space.identity()


def test_the_section_survives_its_file() -> None:
    config = config_of({**RATE, "encoder.tokens": {"choice": ["svd", None, 1]}})
    tree = parse_yaml(dump_config(config))
    assert build_config(RunConfig, tree, origin="test") == config
