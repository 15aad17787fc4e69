"""Asynchronous successive halving over a search's trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from ray_xml.cluster.trial import METRIC, TIME
from ray_xml.search_log import TrialRecord


class _Numbered:
    """What the scheduler knows a trial by: its number, the same after the search went on."""

    def __init__(self, number: int) -> None:
        self.number, self.trial_id = number, str(number)


_NOBODY: Any = None  # Ray's ASHA does not look at the controller


class Asha(ASHAScheduler):
    """Ray's ASHA, but for two things.

    The config as it stands, trial 0, is never stopped, so that there is a whole run to compare
    with. And a search that goes on learns from its log what earlier trials came to.
    """

    def __init__(self, grace: int, reduction: int, epochs: int) -> None:
        super().__init__(
            time_attr=TIME,
            metric=METRIC,
            mode="max",
            max_t=epochs,
            grace_period=grace,
            reduction_factor=reduction,
        )
        self._epochs = epochs

    def learn(self, trials: Sequence[TrialRecord]) -> None:
        """Takes in what the log has, in the order in which it came."""
        points = [(point, one.number) for one in trials for point in one.points]
        for number in {number for _, number in points}:
            self._add(_Numbered(number))
        for point, number in sorted(points, key=lambda found: found[0].at):
            self._decide(_Numbered(number), {TIME: point.epoch, METRIC: point.value})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._add(_of(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._decide(_of(trial), result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its last result was told before."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Its results still count."""

    def _add(self, trial: Any) -> None:
        super().on_trial_add(_NOBODY, trial)

    def _decide(self, trial: Any, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(_NOBODY, trial, result)
        # The last epoch is over: the run puts things in order and ends by itself.
        if trial.number == 0 or result[TIME] >= self._epochs:
            return TrialScheduler.CONTINUE
        return decision


def _of(trial: Any) -> Any:
    return _Numbered(trial.config["number"])
