"""The trials of a search, as Ray Tune runs them side by side, and what is written of them.

What a trial is and how far it came is in the search's own log; Ray Tune's state is thrown away
with its process.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from ray_xml.autosize import NodeSize, of_a_trial
from ray_xml.cluster.placement import cluster_nodes
from ray_xml.cluster.trial import METRIC, TIME, Trial
from ray_xml.errors import ResourceError
from ray_xml.run_config import RunConfig
from ray_xml.search_log import DONE, FAILED, RUNNING, STOPPED, SearchLog, TrialRecord
from ray_xml.store import DataSet
from ray_xml.tune_budget import DRIVER_CPUS, Budget, budget
from ray_xml.tune_folder import TuneFolder
from ray_xml.tune_search import suggest
from ray_xml.tune_space import default_parameters

# Ray Tune's own settings: Ctrl-C as everywhere else, and no files of its own.
_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trials:
    """A search that is going on.

    Attributes:
        config: the search's, with its space.
        say: told a line for each validation, and what the search takes.
    """

    config: RunConfig
    data: DataSet
    folder: TuneFolder
    log: SearchLog
    say: Say

    @property
    def total(self) -> int:
        """Epochs of a whole run."""
        return self.config.resolved(self.data).training.total

    def budget(self, trials: int) -> Budget:
        """What so many trials take of the cluster.

        Raises:
            ResourceError: it does not hold the search.
        """
        nodes = [NodeSize(node.cpus, node.gpus) for node in cluster_nodes()]
        resources = of_a_trial(self.config.resources, gpus=any(node.gpus for node in nodes))
        return budget(resources, nodes, trials, self.config.tune.concurrent)

    def run(
        self, numbers: Sequence[int], scheduler: TrialScheduler, epochs: int, found: Budget
    ) -> None:
        """Runs trials until each has done ``epochs`` epochs, has failed, or was stopped."""
        os.environ.update(_ENVIRONMENT)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        scratch = self.folder.path / ".ray"
        shutil.rmtree(scratch, ignore_errors=True)  # a killed search's
        try:
            tune.Tuner(
                tune.with_resources(Trial, tune.PlacementGroupFactory([_driver(self.config)])),
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(self, numbers, epochs, found.cpus_per_worker),
                    scheduler=scheduler,
                    num_samples=len(numbers),
                    max_concurrent_trials=found.concurrent,
                    reuse_actors=False,
                    trial_dirname_creator=lambda trial: f"{trial.config['number']:03d}",
                ),
                run_config=tune.RunConfig(
                    name="search",
                    storage_path=str(scratch),
                    verbose=0,
                    callbacks=[_Follower(self, epochs)],
                    # A trial's run folder is its checkpoint.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    # A process or a node that is lost; what a run says itself is no failure to
                    # Tune.
                    failure_config=tune.FailureConfig(
                        max_failures=self.config.resources.max_failures
                    ),
                ),
            ).fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


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
        self, trials: Trials, numbers: Sequence[int], epochs: int, cpus_per_worker: float
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._settings, self._log = trials.config.tune, trials.log
        self._first = default_parameters(trials.config.resolved(trials.data))
        self._left = list(numbers)
        self._same = {
            "folder": str(trials.folder.path),
            "cpus_per_worker": cpus_per_worker,
            "until": epochs,
        }

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

    def __init__(self, trials: Trials, epochs: int) -> None:
        self._folder, self._log, self._say = trials.folder, trials.log, trials.say
        self._goal, self._total = epochs, trials.total
        self._metric = trials.config.tune.metric or trials.config.training.metric

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
        elif self._log.trial(number).epochs < self._goal:
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
