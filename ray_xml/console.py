"""Progress on the console: a bar on a terminal, plain lines otherwise.

The worker with rank 0 keeps writing what it does to the run folder's progress.json; whoever
watches the folder, this process or another, reads it.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
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

from ray_xml.epoch_line import checked_event
from ray_xml.json_text import parse_json
from ray_xml.run_folder import RunFolder

_POLL_SECONDS = 0.25
_LINE_SECONDS = 10.0  # how often a plain line says that an epoch is still going on


class Watcher:
    """Shows a run's progress while the ``with`` block runs."""

    def __init__(self, folder: RunFolder, out: Any = None) -> None:
        self._folder = folder
        self._out = out or sys.stderr
        self._stop = threading.Event()
        self._seen = len(folder.lines())
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)

    def __enter__(self) -> Watcher:
        self._folder.progress_file.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._folder.progress_file.unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """Shows a line among the others."""
        self._said.put(text)

    def _watch(self) -> None:
        if self._out.isatty():
            console = Console(file=self._out)
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24))
            with Progress(*columns, console=console, transient=True) as bars:
                task = bars.add_task("starting workers", total=None)
                self._loop(
                    bars.console.print,
                    lambda event, text: bars.update(
                        task, description=text, completed=event["done"], total=event["total"]
                    ),
                )
        else:
            self._loop(self._print, self._plain())

    def _loop(
        self, say: Callable[[str], None], show: Callable[[dict[str, Any], str], None]
    ) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            for line in self._folder.lines()[self._seen :]:
                self._seen += 1
                say(describe_epoch(line))
            while not self._said.empty():
                say(self._said.get())
            event = self._read()
            if event and not stopped:
                show(event, self._describe(event))

    def _plain(self) -> Callable[[dict[str, Any], str], None]:
        last = -_LINE_SECONDS

        def show(event: dict[str, Any], text: str) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                self._print(text)

        return show

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def _read(self) -> dict[str, Any] | None:
        try:
            return checked_event(parse_json(self._folder.progress_file.read_bytes()))
        except (OSError, ValueError):
            return None

    def _describe(self, event: dict[str, Any]) -> str:
        text = f"epoch {min(event['epoch'] + 1, event['epochs'])}/{event['epochs']}"
        text += f"  {event['phase']}"
        if event["total"] > 1:
            text += f"  {event['done']:,}/{event['total']:,}"
        if event["docs_per_second"]:
            text += f"  {event['docs_per_second']:,.0f} docs/s"
        if event.get("loss") is not None:
            text += f"  loss {event['loss']:.3f}"
        left = self._seconds_left(event)
        return text if left is None else f"{text}  about {_time(left)} left"

    def _seconds_left(self, event: dict[str, Any]) -> float | None:
        """From the time that the epochs so far took, start-up and refreshes included."""
        lines = self._folder.lines()
        if not lines:
            return None
        spent: list[float] = [
            sum(v for k, v in x.get("seconds", {}).items() if k != "setup") for x in lines[-4:]
        ]
        mean = sum(spent) / len(spent)
        within = event["done"] / max(event["total"], 1) if event["phase"] == "classifier" else 0.0
        return max(mean * float(event["epochs"] - event["epoch"] - within), 0.0)


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

    def show(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` documents of ``what``."""
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(self._tasks[what], completed=done)


def describe_epoch(line: dict[str, Any]) -> str:
    """One epoch's report, a line of ``RunFolder.lines``, in a line of text; what is not in it is
    left out."""
    text = f"epoch {line['epoch']:>3}"
    if "loss" in line:
        text += f"  loss {line['loss']:.4f}"
    if line.get("seconds"):
        text += f"  {_time(sum(line['seconds'].values()))}"
    if "docs_per_second" in line:
        text += f"  {line['docs_per_second']:,.0f} docs/s"
    checked = line.get("validation")
    if checked:
        shown = [key for key in ("P@1", "P@5", "PSP@5") if key in checked]
        text += "  validation " + " ".join(f"{key} {checked[key]:.2f}" for key in shown)
    if "candidate_recall" in line:
        text += f"  candidate recall {line['candidate_recall']:.1f}"
    return text


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
