"""What happened in a search, event by event: ``search.jsonl`` in its folder.

    {"event": "start", "trial": 3, "at": 12.5, "parameters": {"training.rate": 0.004}}
    {"event": "report", "trial": 3, "at": 40.1, "epoch": 2, "value": 61.3, "seconds": 14.2}
    {"event": "end", "trial": 3, "at": 80.0, "status": "done"}
    {"event": "exploit", "at": 81.0, "epoch": 2, "moves":
        [{"trial": 8, "replaces": 3, "parent": 5, "parameters": {"training.rate": 0.0048}}]}

The last is population-based training's, once a comparison: trial 8 takes the place of trial 3, from
trial 5's weights after epoch 2. It is one line, so that a comparison is known whole or not at all.
``at`` are seconds of work on the search, pauses between two commands apart. Trial 0 is the config
as it stands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray_xml.disk import add_line
from ray_xml.json_text import parse_json
from ray_xml.tune_search import Tried

DONE, STOPPED, FAILED, RUNNING = "done", "stopped", "failed", "running"
REPLACED = "replaced"


@dataclass(frozen=True)
class Point:
    """A validation: after ``epoch`` epochs and ``seconds`` of training, the metric was ``value``;
    the search had lasted ``at`` seconds."""

    epoch: int
    value: float
    seconds: float
    at: float


@dataclass
class TrialRecord:
    """A trial, as far as it has come.

    Attributes:
        status: ``done``, ``stopped`` by the scheduler, ``failed``, ``replaced`` in its population,
            or ``running``.
        reason: what a failed one said.
        parent, since: it began with the weights of trial ``parent`` after ``since`` epochs; None
            and 0 for one that began as new.
    """

    number: int
    parameters: dict[str, Any]
    status: str = RUNNING
    reason: str = ""
    points: list[Point] = field(default_factory=list)
    parent: int | None = None
    since: int = 0

    @property
    def best(self) -> float | None:
        """The highest value so far: a run keeps that epoch's checkpoint."""
        return max((point.value for point in self.points), default=None)

    @property
    def best_epoch(self) -> int:
        """The first epoch with that value."""
        return next((one.epoch for one in self.points if one.value == self.best), 0)

    @property
    def epochs(self) -> int:
        return self.points[-1].epoch if self.points else self.since

    @property
    def seconds(self) -> float:
        """Of training, that of its ancestors included, to the last validation."""
        return self.points[-1].seconds if self.points else 0.0

    def best_within(self, epochs: int) -> float | None:
        """The highest value of the first ``epochs`` epochs."""
        return max((one.value for one in self.points if one.epoch <= epochs), default=None)


@dataclass(frozen=True)
class Move:
    """Trial ``number`` takes the place of trial ``replaces``: it begins with the weights of trial
    ``parent``, and goes on with ``parameters``."""

    number: int
    replaces: int
    parent: int
    parameters: dict[str, Any]


class SearchLog:
    """The log of the search in a folder; what is in it already is read first."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "search.jsonl"
        self._trials: dict[int, TrialRecord] = {}
        self._compared: set[int] = set()
        last = 0.0
        if self.path.exists():
            for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # a line that was cut
                    event = parse_json(text)
                    last = max(last, float(event["at"]))
                    self._take(event)
        self._began = time.monotonic() - last

    def trials(self) -> list[TrialRecord]:
        """In the order of their numbers."""
        return [self._trials[number] for number in sorted(self._trials)]

    def trial(self, number: int) -> TrialRecord:
        return self._trials[number]

    def compared(self) -> frozenset[int]:
        """The epochs after which the population was compared."""
        return frozenset(self._compared)

    def history(self) -> list[Tried]:
        """What a searcher learns from."""
        return [
            Tried(one.parameters, one.best, running=one.status == RUNNING) for one in self.trials()
        ]

    def start(self, number: int, parameters: Mapping[str, Any]) -> None:
        """A trial begins, or goes on, in which case it is told once."""
        if number not in self._trials or self._trials[number].status != RUNNING:
            self._write({"event": "start", "trial": number, "parameters": dict(parameters)})

    def report(self, number: int, epoch: int, value: float, seconds: float) -> bool:
        """A validation; False if it is known: a trial that goes on tells again what it has."""
        if self._trials[number].epochs >= epoch:
            return False
        told = {"epoch": epoch, "value": value, "seconds": seconds}
        self._write({"event": "report", "trial": number, **told})
        return True

    def end(self, number: int, status: str, reason: str = "") -> None:
        told = {"status": status} | ({"reason": reason} if reason else {})
        self._write({"event": "end", "trial": number, **told})

    def exploit(self, epoch: int, moves: Sequence[Move]) -> None:
        """What came of comparing a population after ``epoch`` epochs, which may be nothing."""
        told = [
            {
                "trial": one.number,
                "replaces": one.replaces,
                "parent": one.parent,
                "parameters": dict(one.parameters),
            }
            for one in moves
        ]
        self._write({"event": "exploit", "epoch": epoch, "moves": told})

    def _write(self, event: dict[str, Any]) -> None:
        event["at"] = round(time.monotonic() - self._began, 2)
        self._take(event)
        add_line(self.path, json.dumps(event))

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "exploit":
            self._take_moves(int(event["epoch"]), event["moves"])
            return
        number = int(event["trial"])
        if event["event"] == "start":
            known = self._trials.setdefault(number, TrialRecord(number, event["parameters"]))
            known.status, known.reason = RUNNING, ""
        elif event["event"] == "report":
            numbers = (float(event[key]) for key in ("value", "seconds", "at"))
            self._trials[number].points.append(Point(int(event["epoch"]), *numbers))
        elif event["event"] == "end":
            self._trials[number].status = str(event["status"])
            self._trials[number].reason = str(event.get("reason", ""))

    def _take_moves(self, epoch: int, moves: list[dict[str, Any]]) -> None:
        for one in moves:
            number, parent = int(one["trial"]), int(one["parent"])
            self._trials[int(one["replaces"])].status = REPLACED
            self._trials[number] = TrialRecord(
                number, one["parameters"], parent=parent, since=epoch
            )
        self._compared.add(epoch)
