"""A trial of a search, as Ray Tune runs it: one step is one validation of an ordinary run."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune

from ray_xml.autosize import of_a_trial
from ray_xml.cluster.trial_process import TrialProcess
from ray_xml.config import load_config
from ray_xml.errors import TrainingError
from ray_xml.run_config import RunConfig
from ray_xml.tune_folder import TuneFolder

METRIC, TIME = "value", "epoch"
_POLL_SECONDS = 0.2


class Trial(tune.Trainable):
    """Follows a run in a process of its own.

    Its config: ``folder`` of the search, ``number``, ``parameters``, ``cpus_per_worker``,
    ``until``, the epochs after which it ends, and ``after``, the last one that is known already.
    """

    def setup(self, config: dict[str, Any]) -> None:
        folder, number = TuneFolder(config["folder"]), config["number"]
        base = load_config(RunConfig, folder.config_file)
        run = folder.trial_config(
            base, number, config["parameters"], config["cpus_per_worker"], config["until"]
        )
        # This process may lie on any node: it joins by the address, not by what is started here.
        address = ray.get_runtime_context().gcs_address
        sized = of_a_trial(run.resources, gpus=ray.cluster_resources().get("GPU", 0.0) > 0)
        resources = sized.model_copy(update={"address": address})
        run = run.model_copy(update={"resources": resources})
        self._folder, self._metric = folder.trial(number), run.training.metric
        self._told = config["after"]
        self._process = TrialProcess(run, folder.trial_log(number))

    def step(self) -> dict[str, Any]:
        """Waits for the next validation, or for the end.

        Returns:
            ``epoch``, ``value`` of the metric, ``seconds`` of training; ``done`` at the end, and
            ``failed`` with what went wrong if it would go wrong again.
        """
        while True:
            status = self._process.status()  # before the lines: the last may come in between
            lines = self._folder.lines()
            checked = [line for line in lines if "validation" in line]
            new = [line for line in checked if line["epoch"] > self._told]
            if new:
                self._told = new[0]["epoch"]
                return self._result(new[0], lines)
            if status == 0:
                return self._result(checked[-1], lines) | {"done": True}
            if status == 1:
                why = self._process.last_words()
                return {METRIC: float("nan"), TIME: self._told, "failed": why, "done": True}
            if status is not None:
                raise TrainingError(f"the trial's process is gone: {self._process.last_words()}")
            time.sleep(_POLL_SECONDS)

    def cleanup(self) -> None:
        """Frees all that the trial holds."""
        self._process.end()

    def _result(self, line: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
        spent = sum(sum(one["seconds"].values()) for one in lines if one["epoch"] <= line["epoch"])
        return {
            METRIC: line["validation"][self._metric],
            TIME: line["epoch"],
            "seconds": round(spent, 2),
        }
