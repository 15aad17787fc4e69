"""A made population: runs are numbers, and what is better is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_xml.config import build_config
from ray_xml.search_log import DONE, FAILED, SearchLog
from ray_xml.tune_config import TuneConfig
from ray_xml.tune_pbt import Exploit, lineage, next_step
from ray_xml.tune_search import suggest

SPACE = {
    "training.rate": {"log_uniform": [0.001, 1.0]},
    "encoder.dropout": {"uniform": [0.0, 0.6]},
    "classifier.random_negatives": {"log_integer": [4, 64]},
    "training.batch_size": {"choice": [32, 64, 128, 256]},
}
FIRST = {
    "training.rate": 0.5, "encoder.dropout": 0.1, "classifier.random_negatives": 80,
    "training.batch_size": 64,
}  # fmt: skip


def settings_of(**keys: Any) -> TuneConfig:
    tree = {"space": SPACE, "scheduler": "pbt", "trials": 6, **keys}
    return build_config(TuneConfig, tree, origin="test")


class KilledError(Exception):
    """The driver is."""


class Driver:
    """Trains a population in turns, as the cluster would, but each run is a sum: an epoch with
    rate r adds 1 − r, so that low rates are good; rates in ``bad`` fail.

    Args:
        folder: of the log, which is all that it has.
        events: after so many epochs and comparisons, the driver is killed.
    """

    def __init__(
        self, settings: TuneConfig, folder: Path, *, interval: int, total: int,
        events: int = 10**9, bad: float = 2.0,
    ) -> None:  # fmt: skip
        self.settings, self.log = settings, SearchLog(folder)
        self.interval, self.total, self.left, self.bad = interval, total, events, bad
        self.trained: list[tuple[int, int]] = []  # (trial, epoch), in order

    def run(self) -> SearchLog:
        given_up: set[int] = set()
        while True:
            trials, compared = self.log.trials(), self.log.compared()
            step = next_step(self.settings, self.interval, self.total, trials, compared, given_up)
            if step is None:
                return self.log
            if isinstance(step, Exploit):
                self._count()
                self.log.exploit(step.epoch, step.moves)
                continue
            for number in step.trials:
                if not self._train(number, step.epoch):
                    given_up.add(number)

    def _count(self) -> None:
        if self.left == 0:
            raise KilledError
        self.left -= 1

    def _train(self, number: int, until: int) -> bool:
        known = {one.number: one for one in self.log.trials()}
        first = FIRST if number == 0 else suggest(self.settings, number, [])
        self.log.start(number, known[number].parameters if number in known else first)
        one = self.log.trial(number)
        if one.parameters["training.rate"] >= self.bad:
            self.log.end(number, FAILED, "not finite")
            return False
        for epoch in range(one.epochs + 1, until + 1):
            self._count()
            self.trained.append((number, epoch))
            self.log.report(number, epoch, self.value(number, epoch), float(epoch))
        if until == self.total:
            self.log.end(number, DONE)
        return True

    def value(self, number: int, epoch: int) -> float:
        """Of a run after so many epochs: the sum over its ancestors' parts and its own."""
        line = lineage(self.log.trials(), number)
        ends = [*(one.since for one in line[1:]), epoch]
        return sum(
            (end - one.since) * (1.0 - one.parameters["training.rate"])
            for one, end in zip(line, ends, strict=True)
        )
