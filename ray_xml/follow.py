"""Following a run: one thread reads what it writes down, and hands it to whoever listens.

Each listener is called in a thread of its own, so that one that waits for a network holds up
neither the run nor the others. What a listener does not take is told once and kept for it: it is
tried again after the next epoch, and once more at the end. Training never depends on it.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from ray_xml.errors import CheckpointError
from ray_xml.run_records import METRICS, PROGRESS, read_event, read_lines

Line = dict[str, Any]
_POLL_SECONDS = 0.25


class Listener:
    """Whoever wants to know of a run. All calls come from one thread, in the order of the run.

    Attributes:
        name: in messages.
        patience: seconds that the end of a run waits for the listener to take the rest; None
            waits for as long as it takes.
    """

    name: ClassVar[str]
    patience: float | None = 30.0

    def begin(self, lines: Sequence[Line]) -> None:
        """First of all; ``lines`` are of the epochs that an earlier call of the run did."""

    def epoch(self, line: Line) -> None:
        """An epoch was done. It can come again with another line: where its checkpoint was
        damaged it is trained again."""

    def event(self, event: dict[str, Any]) -> None:
        """What is going on now; some of these are left out."""

    def said(self, text: str) -> None:
        """What the driver has to say."""

    def end(self, status: str) -> None:
        """Last of all: ``finished``, ``failed`` or ``stopped`` (by Ctrl-C or a signal)."""


class Follower:
    """Follows the run in the folder ``run`` while the ``with`` block runs.

    Args:
        own: whether the run is this process's, which clears away progress.json before and after.
        out: where failures of listeners are told; standard error if None.
    """

    def __init__(
        self, run: Path, listeners: Sequence[Listener], *, own: bool = True, out: Any = None
    ) -> None:
        self._run, self._own = run, own
        self._posts = [_Post(one, out or sys.stderr) for one in listeners]
        self._stop = threading.Event()
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._known: dict[int, Line] = {}
        self._version: tuple[int, ...] = ()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)

    def __enter__(self) -> Follower:
        if self._own:
            (self._run / PROGRESS).unlink(missing_ok=True)
        self._version = self._stat()
        before = read_lines(self._run)
        self._known = {line["epoch"]: line for line in before}
        for post in self._posts:
            post.keep(partial(post.listener.begin, before))
            post.start()
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
        stopped = kind is not None and not issubclass(kind, Exception)
        status = "finished" if kind is None else "stopped" if stopped else "failed"
        for post in self._posts:
            post.finish(status)
        began = time.monotonic()
        for post in self._posts:
            post.wait(began)
        if self._own:
            (self._run / PROGRESS).unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """Hands on a line of text, after the epochs that are done by now."""
        self._said.put(text)

    def _follow(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            said = [self._said.get() for _ in range(self._said.qsize())]
            for line in self._news():
                for post in self._posts:
                    post.keep(partial(post.listener.epoch, line))
            for text in said:
                for post in self._posts:
                    post.keep(partial(post.listener.said, text))
            event = None if stopped else read_event(self._run)
            if event is not None:
                for post in self._posts:
                    post.offer(partial(post.listener.event, event))

    def _news(self) -> list[Line]:
        """Lines that are not known. A restart may take some back, which then come again."""
        version = self._stat()
        if version == self._version:
            return []
        try:
            lines = {line["epoch"]: line for line in read_lines(self._run)}
        except (OSError, CheckpointError):  # a file system that is away for a moment
            return []
        self._version = version
        new = [line for epoch, line in lines.items() if self._known.get(epoch) != line]
        self._known = lines
        return new

    def _stat(self) -> tuple[int, ...]:
        try:
            found = (self._run / METRICS).stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_size, found.st_mtime_ns)


class _Post:
    """A listener's thread, and what it has not taken yet."""

    def __init__(self, listener: Listener, out: Any) -> None:
        self.listener = listener
        self._out = out
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], bool] | None] = queue.SimpleQueue()
        self._waiting: deque[Callable[[], None]] = deque()
        self._status = ""
        self._told = False
        self._thread = threading.Thread(target=self._work, name=f"to {listener.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def keep(self, call: Callable[[], None]) -> None:
        """Makes the call once all before it succeeded."""
        self._queue.put((call, True))

    def offer(self, call: Callable[[], None]) -> None:
        """Makes the call if the listener is not busy with another."""
        if self._queue.empty():
            self._queue.put((call, False))

    def finish(self, status: str) -> None:
        self._status = status
        self._queue.put(None)

    def wait(self, began: float) -> None:
        """Waits for the listener to take the rest, but no longer than its patience from
        ``began``."""
        patience = self.listener.patience
        left = None if patience is None else max(began + patience - time.monotonic(), 0.0)
        self._thread.join(left)
        if self._thread.is_alive():
            self._tell(f"has not taken everything in {patience:.0f} s; not waiting any longer")

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            call, kept = item
            if kept:
                self._waiting.append(call)
                while self._waiting and self._try(self._waiting[0]):
                    self._waiting.popleft()
            elif not self._waiting:
                self._try(call)
        lost = [call for call in self._waiting if not self._try(call)]
        if lost:
            self._tell("was not told everything; the run folder has it all")
        self._try(partial(self.listener.end, self._status))

    def _try(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except BaseException as error:  # another's code; Ctrl-C comes to the main thread
            if not self._told:
                self._told = True
                said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                self._tell(f"failed ({said}). Training goes on; it is tried again after each epoch")
            return False
        return True

    def _tell(self, text: str) -> None:
        print(f"warning: {self.listener.name} {text}", file=self._out, flush=True)
