"""Progress on the console: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ray_xml.follow import Listener
from ray_xml.run_text import describe_epoch, describe_event

_LINE_SECONDS = 10.0  # how often a plain line says that an epoch is still going on


class Watcher(Listener):
    """Shows a run's progress on ``out``, standard error if None."""

    name = "the console"

    def __init__(self, out: Any = None) -> None:
        self._out = out or sys.stderr
        self._lines: dict[int, dict[str, Any]] = {}
        self._bars: Progress | None = None
        self._task = TaskID(0)
        self._shown = -_LINE_SECONDS  # when a plain line was last shown

    def begin(self, lines: Sequence[dict[str, Any]]) -> None:
        self._lines = {line["epoch"]: line for line in lines}
        if self._out.isatty():
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24))
            self._bars = Progress(*columns, console=Console(file=self._out), transient=True)
            self._bars.start()
            self._task = self._bars.add_task("starting workers", total=None)

    def epoch(self, line: dict[str, Any]) -> None:
        self._lines[line["epoch"]] = line
        self.said(describe_epoch(line))

    def said(self, text: str) -> None:
        if self._bars is None:
            print(text, file=self._out, flush=True)
        else:
            self._bars.console.print(text)

    def event(self, event: dict[str, Any]) -> None:
        done = [self._lines[epoch] for epoch in sorted(self._lines) if epoch <= event["epoch"]]
        text = describe_event(event, done)
        if self._bars is not None:
            self._bars.update(
                self._task, description=text, completed=event["done"], total=event["total"]
            )
        elif time.monotonic() - self._shown >= _LINE_SECONDS:
            self._shown = time.monotonic()
            self.said(text)

    def end(self, status: str) -> None:
        if self._bars is not None:
            self._bars.stop()


class Counter:
    """Shows how far a loop over documents has come, on a terminal; silent otherwise."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Counter:
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(24), TimeRemainingColumn())
            self._bars = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, what: str, done: int, total: int | None) -> None:
        """``done`` of ``total`` documents of ``what``; None where nobody knows yet how many."""
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(self._tasks[what], completed=done)
