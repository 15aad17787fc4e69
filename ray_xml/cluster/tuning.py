"""A search for better settings: it is checked, then trials run side by side, and those behind are
stopped, or go on from those in front.

A killed search goes on from its log: trials that ended are not run again, those that were going on
go on from their run folders.
"""

from __future__ import annotations

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from ray_xml.cluster.asha import Asha
from ray_xml.cluster.data_places import driver_cache
from ray_xml.cluster.population import is_over, train_population
from ray_xml.cluster.session import check_local, session
from ray_xml.cluster.trials import Say, Trials
from ray_xml.data_url import open_data
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig
from ray_xml.run_lock import driver_lock
from ray_xml.run_url import check_named, for_any_node
from ray_xml.search_log import DONE, STOPPED, SearchLog
from ray_xml.tune_config import TuneConfig
from ray_xml.tune_folder import TuneFolder
from ray_xml.tune_report import write_results
from ray_xml.tune_search import check_searcher
from ray_xml.tune_space import check_space, check_space_data, grace_epochs


def search(config: RunConfig, *, resume: bool = False, say: Say = print) -> str:
    """Runs the search that ``config.tune`` describes in the folder ``config.run``.

    Args:
        resume: go on with the search that is there.
        say: told a line for each validation, and what the search takes.

    Returns:
        the table of trials and the comparison with the config as it stands.

    Raises:
        ConfigError, DataSetError, ResourceError: before any process starts, or when the cluster
            does not hold the search.
        CheckpointError: pbt: a trial that others were to go on from has lost all its checkpoints.
        TrainingError: no trial came to a validation.
    """
    check_named(config)
    if config.resources.storage is not None:
        raise ConfigError(
            "resources.storage keeps one run; a search keeps its trials in the folder run alone: "
            "unset it, and set it again to train best.yaml"
        )
    check_space(config)
    check_searcher(config.tune)
    data = open_data(config.data, driver_cache(config.resources))
    check_space_data(config, data)
    check_local(config.resources)
    folder = TuneFolder(config.run)
    config = for_any_node(config, data)
    with driver_lock(folder.path):
        folder.begin(config, resume=resume)
        log = SearchLog(folder.path)
        trials = Trials(config, data, folder, log, say)
        if not _is_over(trials):
            with session(config.resources):
                _run(trials)
        return write_results(folder.path, config, log)


def _run(trials: Trials) -> None:
    settings = trials.config.tune
    if settings.scheduler == "pbt":
        train_population(trials)
        return
    left = _left(settings, trials.log)
    scheduler: TrialScheduler = FIFOScheduler()
    if settings.scheduler == "asha":
        scheduler = Asha(grace_epochs(trials.config), settings.reduction, trials.total)
        scheduler.learn(trials.log.trials())
    found = trials.budget(len(left))
    trials.say(found.arithmetic)
    trials.run(left, scheduler, trials.total, found)


def _is_over(trials: Trials) -> bool:
    if trials.config.tune.scheduler == "pbt":
        return is_over(trials)
    return not _left(trials.config.tune, trials.log)


def _left(settings: TuneConfig, log: SearchLog) -> list[int]:
    """Numbers of the trials that have not ended, those that failed among them."""
    ended = {one.number for one in log.trials() if one.status in (DONE, STOPPED)}
    return [number for number in range(settings.trials) if number not in ended]
