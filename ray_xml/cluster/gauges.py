"""A run's gauges among Ray's metrics, which the dashboard and Prometheus show.

Ray puts ``ray_`` before the names, so ``xml_loss`` is found as ``ray_xml_loss``. Each has the tag
``run``, the name of the run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.util.metrics import Gauge

from ray_xml.follow import Line, Listener

# Keys of an epoch's line that are shown as they are, and what they mean.
_SHOWN = {
    "loss": "Training loss: of the steps so far in an epoch, of all its steps after it",
    "docs_per_second": "Training documents a second, over all workers",
    "shortlist_recall": "Percent of validation documents' labels that are on their shortlists",
    "candidate_recall": "Percent of validation documents' labels among their candidates",
    "memory_gib": "Peak resident memory over workers and label shards, in GiB",
}


class Gauges(Listener):
    """Sets the gauges of the run ``name`` from this process, which is connected to Ray."""

    name = "Ray's metrics"

    def __init__(self, name: str) -> None:
        self._tags = {"run": name}
        self._shown = {key: Gauge(f"xml_{key}", text, ("run",)) for key, text in _SHOWN.items()}
        self._epoch = Gauge("xml_epoch", "Epochs done", ("run",))
        self._epochs = Gauge("xml_epochs", "Epochs in all", ("run",))
        self._validation = Gauge("xml_validation", "On validation, percent", ("run", "metric"))
        self._phase = Gauge("xml_phase", "1 for what the run does now", ("run", "phase"))
        self._now: str | None = None

    def begin(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.epoch(line)

    def epoch(self, line: Line) -> None:
        self._epoch.set(line["epoch"], self._tags)
        for key, gauge in self._shown.items():
            gauge.set(line.get(key), self._tags)
        for metric, value in line.get("validation", {}).items():
            self._validation.set(value, {**self._tags, "metric": metric})

    def event(self, event: dict[str, Any]) -> None:
        self._epochs.set(event["epochs"], self._tags)
        if event["docs_per_second"]:
            self._shown["docs_per_second"].set(event["docs_per_second"], self._tags)
        self._shown["loss"].set(event.get("loss"), self._tags)
        self._enter(event["phase"])

    def end(self, status: str) -> None:
        self._enter(None)

    def _enter(self, phase: str | None) -> None:
        if phase == self._now:
            return
        if self._now is not None:
            self._phase.set(0, {**self._tags, "phase": self._now})
        if phase is not None:
            self._phase.set(1, {**self._tags, "phase": phase})
        self._now = phase
