"""A search for better settings: Ray Tune starts runs, side by side, and stops those behind.

What a trial is and how far it came is in the search's own log; Ray Tune's state is thrown away
with its process. So a killed search goes on from the log: trials that ended are not run again,
those that were going on go on from their run folders.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from ray_xml.autosize import NodeSize, of_a_trial
from ray_xml.cluster.asha import Asha
from ray_xml.cluster.placement import cluster_nodes
from ray_xml.cluster.session import check_local, session
from ray_xml.cluster.trial import METRIC, TIME, Trial
from ray_xml.errors import ConfigError, ResourceError
from ray_xml.run_config import RunConfig
from ray_xml.run_lock import driver_lock
from ray_xml.search_log import DONE, FAILED, RUNNING, STOPPED, SearchLog, TrialRecord
from ray_xml.store import DataSet
from ray_xml.tune_budget import DRIVER_CPUS, Budget, budget
from ray_xml.tune_config import TuneConfig
from ray_xml.tune_folder import TuneFolder
from ray_xml.tune_report import write_results
from ray_xml.tune_search import check_searcher, suggest
from ray_xml.tune_space import check_space, check_space_data, default_parameters, grace_epochs

# Ray Tune's own settings: Ctrl-C as everywhere else, and no files of its own.
_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
Say = Callable[[str], None]


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
        TrainingError: no trial came to a validation.
    """
    for key, value in (("data", config.data), ("run", config.run)):
        if not value:
            raise ConfigError(f"{key} is not set; add {key}=FOLDER")
    if config.resources.storage is not None:
        raise ConfigError(
            "resources.storage keeps one run; a search keeps its trials in the folder run alone: "
            "unset it, and set it again to train best.yaml"
        )
    check_space(config)
    check_searcher(config.tune)
    data = DataSet.open(config.data)
    check_space_data(config, data)
    check_local(config.resources)
    folder = TuneFolder(config.run)
    cache = config.resources.cache and str(Path(config.resources.cache).resolve())
    config = config.model_copy(
        update={
            "data": str(data.path.resolve()),
            "run": str(folder.path),
            "resources": config.resources.model_copy(update={"cache": cache}),
        }
    )
    with driver_lock(folder.path):
        folder.begin(config, resume=resume)
        log = SearchLog(folder.path)
        if len(_left(config.tune, log)) > 0:
            with session(config.resources):
                _run(config, data, folder, log, say)
        return write_results(folder.path, config, data, log)


def _left(settings: TuneConfig, log: SearchLog) -> list[int]:
    """Numbers of the trials that have not ended, those that failed among them."""
    ended = {one.number for one in log.trials() if one.status in (DONE, STOPPED)}
    return [number for number in range(settings.trials) if number not in ended]


def _run(config: RunConfig, data: DataSet, folder: TuneFolder, log: SearchLog, say: Say) -> None:
    settings, total = config.tune, config.resolved(data).training.total
    left = _left(settings, log)
    found = _budget(config, len(left))
    say(found.arithmetic)
    scheduler: TrialScheduler = FIFOScheduler()
    if settings.scheduler == "asha":
        scheduler = Asha(grace_epochs(config), settings.reduction, total)
        scheduler.learn(log.trials())
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = folder.path / ".ray"
    shutil.rmtree(scratch, ignore_errors=True)  # a killed search's
    first = default_parameters(config.resolved(data))
    try:
        tune.Tuner(
            tune.with_resources(Trial, tune.PlacementGroupFactory([_driver(config)])),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(config, folder, log, left, first, found.cpus_per_worker),
                scheduler=scheduler,
                num_samples=len(left),
                max_concurrent_trials=found.concurrent,
                reuse_actors=False,
                trial_dirname_creator=lambda trial: f"{trial.config['number']:03d}",
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[_Follower(config, folder, log, total, say)],
                # A trial's run folder is its checkpoint.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                # A process or a node that is lost; what a run says itself is no failure to Tune.
                failure_config=tune.FailureConfig(max_failures=config.resources.max_failures),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _budget(config: RunConfig, trials: int) -> Budget:
    nodes = [NodeSize(node.cpus, node.gpus) for node in cluster_nodes()]
    resources = of_a_trial(config.resources, gpus=any(node.gpus for node in nodes))
    return budget(resources, nodes, trials, config.tune.concurrent)


def _driver(config: RunConfig) -> dict[str, float]:
    """What a trial's driver takes. Where only this node has the data set, it is bound to it."""
    if config.resources.data == "shared":
        return {"CPU": DRIVER_CPUS}
    here = ray.get_runtime_context().get_node_id()
    node = next((one for one in ray.nodes() if one["NodeID"] == here), None)
    if node is None or node["Resources"].get("CPU", 0) < DRIVER_CPUS:
        raise ResourceError(
            "resources.data=copy: trials are driven from the node that has the data set, but it "
            "has no CPU for them; share the data set, or start the node with CPUs"
        )
    return {"CPU": DRIVER_CPUS, f"node:{node['NodeManagerAddress']}": 0.001}


class _Searcher(Searcher):
    """Hands out the trials that are left, first those that were going on."""

    def __init__(
        self,
        config: RunConfig,
        folder: TuneFolder,
        log: SearchLog,
        left: list[int],
        first: dict[str, Any],
        cpus_per_worker: float,
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._settings, self._log, self._first = config.tune, log, first
        self._left = list(left)
        self._same = {"folder": str(folder.path), "cpus_per_worker": cpus_per_worker}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        number = self._left.pop(0)
        known = {one.number: one for one in self._log.trials()}
        if number in known:
            parameters, after = known[number].parameters, known[number].epochs
        elif number == 0:
            parameters, after = self._first, 0
        else:
            parameters, after = suggest(self._settings, number, self._log.history()), 0
        self._log.start(number, parameters)
        return {**self._same, "number": number, "parameters": parameters, "after": after}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The log has it."""

    def save(self, checkpoint_path: str) -> None:
        """There is nothing that the log does not have."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a search goes on from its log")


class _Follower(tune.Callback):
    """Writes the log, and tells what happens."""

    def __init__(
        self, config: RunConfig, folder: TuneFolder, log: SearchLog, total: int, say: Say
    ) -> None:
        self._folder, self._log, self._total, self._say = folder, log, total, say
        self._metric = config.tune.metric or config.training.metric

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
    ) -> None:
        number = trial.config["number"]
        if "failed" in result:
            return
        if self._log.report(number, result[TIME], result[METRIC], result["seconds"]):
            best = max(self._log.trials(), key=_value)
            self._say(
                f"trial {number}  epoch {result[TIME]}/{self._total}  {self._metric} "
                f"{result[METRIC]:.2f}  {result['seconds']:.0f} s  "
                f"(best {_value(best):.2f}, trial {best.number})"
            )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        number, last = trial.config["number"], trial.last_result
        if "failed" in last:
            self._end(number, FAILED, str(last["failed"]))
        elif self._log.trial(number).epochs >= self._total:
            self._end(number, DONE)
        else:
            self._end(number, STOPPED)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        number = trial.config["number"]
        self._end(number, FAILED, f"its process was lost; see {self._folder.trial_log(number)}")

    def _end(self, number: int, status: str, reason: str = "") -> None:
        if self._log.trial(number).status == RUNNING:
            self._log.end(number, status, reason)
            self._folder.forget_scratch(number)
            self._say(f"trial {number}  {status}" + (f": {reason}" if reason else ""))


def _value(one: TrialRecord) -> float:
    return float("-inf") if one.best is None else one.best
