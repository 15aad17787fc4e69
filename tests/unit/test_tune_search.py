"""Which parameters a trial tries."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from ray_xml.config import build_config
from ray_xml.errors import ConfigError
from ray_xml.tune_config import TuneConfig
from ray_xml.tune_search import Tried, check_searcher, suggest

SPACE = {
    "training.rate": {"log_uniform": [0.001, 1.0]},
    "encoder.dim": {"integer": [8, 64]},
    "encoder.tokens": {"choice": ["svd", None, "random"]},
}


def settings(searcher: str, **keys: Any) -> TuneConfig:
    return build_config(TuneConfig, {"space": SPACE, "searcher": searcher, **keys}, origin="test")


def value(parameters: dict[str, Any]) -> float:
    """Best at rate 0.9 with the second choice."""
    return float(parameters["training.rate"]) - (parameters["encoder.tokens"] is not None)


def told(found: TuneConfig, trials: int) -> list[Tried]:
    history: list[Tried] = []
    for number in range(trials):
        parameters = suggest(found, number, history)
        history.append(Tried(parameters, value(parameters)))
    return history


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_suggestions_are_in_the_space_and_repeat(searcher: str) -> None:
    if searcher == "optuna":
        pytest.importorskip("optuna")
    found = settings(searcher)
    first = told(found, 8)
    assert first == told(found, 8)
    assert first != told(settings(searcher, seed=1), 8)
    for one in first:
        assert one.parameters.keys() == SPACE.keys()
        assert all(found.space[key].place(v) is not None for key, v in one.parameters.items())
    assert len({str(one.parameters) for one in first}) == 8


def test_a_random_trial_does_not_depend_on_the_others() -> None:
    found = settings("random")
    assert suggest(found, 5, []) == suggest(found, 5, told(found, 5))


def test_optuna_learns_from_the_trials_before() -> None:
    pytest.importorskip("optuna")
    found, drawn = told(settings("optuna"), 40), told(settings("random"), 40)

    def late(history: list[Tried]) -> float:
        return sum(one.value or 0.0 for one in history[20:]) / 20

    assert late(found) > late(drawn) + 0.3


def test_optuna_takes_running_failed_and_outlying_trials() -> None:
    pytest.importorskip("optuna")
    found = settings("optuna")
    outside = Tried({"training.rate": 7.0, "encoder.dim": 300, "encoder.tokens": "auto"}, 1.0)
    history = told(found, 10)
    plain = suggest(found, 10, history)
    failed = Tried(history[3].parameters, None)
    assert suggest(found, 10, [outside, *history, failed]) == plain
    running = Tried(plain, None, running=True)
    assert suggest(found, 10, [*history, *[running] * 8]) != plain


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    check_searcher(settings("random"))
    with pytest.raises(ConfigError, match=r"pip install 'ray-xml\[tune\]'"):
        check_searcher(settings("optuna"))
