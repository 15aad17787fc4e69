"""The search space over a run's config: what may be searched, and the config of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray_xml.config import build_config, keys_of, unknown_key
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig, check_data
from ray_xml.store import DataSet
from ray_xml.tune_config import Scalar, TuneConfig
from ray_xml.tune_pbt import CHANGEABLE

Parameters = Mapping[str, Scalar]

_SCORES = "scores of other documents, or by another measure, cannot be compared"
# Keys, and whole sections, that a search must leave alone.
_FIXED = {
    "data": _SCORES,
    "dataset": _SCORES,
    "training.validation": _SCORES,
    "training.seed": "it draws the validation documents: " + _SCORES,
    "training.metric": "the search's own is tune.metric",
    "training.epochs": "it is what every run may spend; set it beside tune",
    "training.keep_checkpoints": "it does not change the model",
    "run": "every run of the search has its own",
    "resources": "they do not change the model",
    "tune": "a search does not search over itself",
}
_BY_EPOCH = {
    "training.cycle_epochs": "tune.scheduler=asha compares runs at the same epochs, but this says "
    "at which a run validates; set tune.scheduler=none"
}


def check_space(config: RunConfig) -> None:
    """Refuses a space with a key or a value that a run would not take.

    Raises:
        ConfigError: it names the key, what is wrong with it, and the nearest right one.
    """
    settings = config.tune
    if not settings.space:
        raise ConfigError(
            "tune.space is empty; name keys and their values in the config, such as\n"
            "tune:\n  space:\n    training.rate: {log_uniform: [0.001, 0.01]}"
        )
    known = keys_of(RunConfig)
    sections = {key.rpartition(".")[0] for key in known}
    refused = _FIXED | (_BY_EPOCH if settings.scheduler == "asha" else {})
    for key, domain in settings.space.items():
        for fixed, why in refused.items():
            if key == fixed or key.startswith(f"{fixed}."):
                raise ConfigError(f"tune.space: {key!r} cannot be searched over: {why}")
        if key not in known:
            raise ConfigError(f"tune.space: {unknown_key(RunConfig, key)}")
        if key in sections:
            raise ConfigError(f"tune.space: {key!r} is a whole section; name its keys")
        if settings.scheduler == "pbt" and key not in CHANGEABLE:
            raise ConfigError(
                f"tune.space: {key!r} cannot change in the middle of a run, as values do under "
                f"tune.scheduler=pbt; these can: {', '.join(CHANGEABLE)}; leave it out, or set "
                "tune.scheduler=asha"
            )
        for value in domain.edges():
            _with(config, {key: value}, origin=f"tune.space: {key}")
    if settings.scheduler == "pbt":
        _check_population(config)
    if config.training.validation == 0:
        raise ConfigError(
            "training.validation=0 leaves no documents to compare runs on; set it to 0.03 or more"
        )
    tuned(config)


def _check_population(config: RunConfig) -> None:
    """Refuses settings that ``tune_pbt`` cannot work with."""
    settings, training = config.tune, config.training
    if settings.searcher != "random":
        raise ConfigError(
            "tune.scheduler=pbt draws its first values at random and changes them from there; set "
            "tune.searcher=random"
        )
    if training.schedule == "linear":
        raise ConfigError(
            "training.schedule=linear falls to zero over a whole run, but tune.scheduler=pbt "
            "trains in parts and looks for a schedule itself; set training.schedule=constant or "
            "step"
        )
    if comparison_epochs(config) % training.cycle_epochs:
        raise ConfigError(
            f"tune.interval={settings.interval} is no multiple of training.cycle_epochs="
            f"{training.cycle_epochs}, at which a run validates; make it one"
        )


def check_space_data(config: RunConfig, data: DataSet) -> None:
    """Likewise against the data set, and the schedule against the epochs it gives.

    Raises:
        ConfigError: a value does not fit the data set, or no run could ever be stopped early.
        DataSetError: the data set is not the config's.
    """
    check_data(config, data)
    for key, domain in config.tune.space.items():
        for value in domain.edges():
            try:
                check_data(_with(config, {key: value}, origin="tune"), data)
            except ConfigError as error:
                raise ConfigError(f"tune.space: {key}={value}: {error}") from None
    training = config.resolved(data).training
    if config.tune.scheduler == "asha" and grace_epochs(config) >= training.total:
        first = training.cycle_epochs
        raise ConfigError(
            f"tune.scheduler=asha could stop no run early: of {training.total} epochs the first "
            f"validation comes after {first}, and tune.grace is {config.tune.grace}; lower "
            "training.cycle_epochs or tune.grace, or set tune.scheduler=none"
        )
    if config.tune.scheduler == "pbt" and comparison_epochs(config) >= training.total:
        raise ConfigError(
            f"tune.scheduler=pbt would never compare its population: of {training.total} epochs "
            f"the first comparison comes after {comparison_epochs(config)}; lower tune.interval "
            "or training.cycle_epochs"
        )


def grace_epochs(config: RunConfig) -> int:
    """Epochs that no run is stopped before: there is nothing to compare before a validation."""
    return max(config.tune.grace or 1, config.training.cycle_epochs)


def comparison_epochs(config: RunConfig) -> int:
    """Epochs from one comparison of a population to the next."""
    return config.tune.interval or config.training.cycle_epochs


def tuned(config: RunConfig, parameters: Parameters | None = None) -> RunConfig:
    """The config that a trial trains: with its parameters, the search's metric, and no search.

    Raises:
        ConfigError: the parameters do not go together.
    """
    metric = config.tune.metric or config.training.metric
    changed = {**(parameters or {}), "training.metric": metric}
    return _with(config, changed, origin="tune").model_copy(update={"tune": TuneConfig()})


def default_parameters(config: RunConfig) -> dict[str, Any]:
    """The searched keys' values in the config as it stands."""
    tree = config.model_dump(mode="json")
    return {key: _at(tree, key.split(".")) for key in config.tune.space}


def _at(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _with(config: RunConfig, parameters: Parameters, *, origin: str) -> RunConfig:
    tree = config.model_dump(mode="json")
    for key, value in parameters.items():
        *above, leaf = key.split(".")
        _at(tree, above)[leaf] = value
    return build_config(RunConfig, tree, origin=origin)
