"""Which parameters a trial tries, from what the trials before it came to.

Nothing is kept between two questions: a searcher is asked for trial number n with the whole
history, so that a search that was killed goes on as if nothing had been.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ray_xml.errors import ConfigError
from ray_xml.tune_config import Domain, Scalar, TuneConfig

_FIRST = 6  # trials that are drawn at random before TPE has something to learn from


@dataclass(frozen=True)
class Tried:
    """One trial of the history.

    Attributes:
        parameters: its values of the searched keys.
        value: the best that it came to; None while it is running, or if it failed.
        running: whether it is.
    """

    parameters: dict[str, Any]
    value: float | None
    running: bool = False


def check_searcher(settings: TuneConfig) -> None:
    """Refuses a searcher that is not installed."""
    if settings.searcher == "optuna":
        _optuna()


def suggest(settings: TuneConfig, number: int, history: Sequence[Tried]) -> dict[str, Scalar]:
    """The parameters of trial ``number``, by the settings' searcher.

    Raises:
        ConfigError: the searcher is not installed.
    """
    if settings.searcher == "optuna":
        return _by_optuna(settings, number, history)
    random = np.random.default_rng([settings.seed, number, 0x7E57])
    return {key: domain.value(float(random.random())) for key, domain in settings.space.items()}


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError(
            "tune.searcher=optuna needs Optuna; pip install 'ray-xml[tune]', or set "
            "tune.searcher=random"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _by_optuna(settings: TuneConfig, number: int, history: Sequence[Tried]) -> dict[str, Scalar]:
    """Tree-structured Parzen estimators (Bergstra et al., NIPS 2011) over the history.

    Trials that are running count as bad ones, so that those beside them look elsewhere.
    """
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=settings.seed * 100_003 + number, n_startup_trials=_FIRST, constant_liar=True
        )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space = {key: _distribution(optuna, domain) for key, domain in settings.space.items()}
    for one in history:
        held = {
            key: _inner(domain, one.parameters[key])
            for key, domain in settings.space.items()
            if domain.place(one.parameters[key]) is not None
        }
        # The config as it stands may lie outside the space: then it teaches nothing.
        if len(held) < len(space) or (one.value is None and not one.running):
            continue
        states = optuna.trial.TrialState
        study.add_trial(
            optuna.trial.create_trial(
                params=held,
                distributions=space,
                value=None if one.running else one.value,
                state=states.RUNNING if one.running else states.COMPLETE,
            )
        )
    asked = study.ask(space).params
    return {key: _outer(domain, asked[key]) for key, domain in settings.space.items()}


def _distribution(optuna: Any, domain: Domain) -> Any:
    if domain.choice is not None:  # by number: Optuna takes few types
        return optuna.distributions.CategoricalDistribution(range(len(domain.choice)))
    low, high = domain.range
    kinds = optuna.distributions
    kind = kinds.IntDistribution if domain.whole else kinds.FloatDistribution
    return kind(low, high, log=domain.logarithmic)


def _inner(domain: Domain, value: Any) -> Any:
    return value if domain.choice is None else domain.choice.index(value)


def _outer(domain: Domain, value: Any) -> Scalar:
    return domain.tidy(value) if domain.choice is None else domain.choice[value]
