"""A run for TensorBoard: event files in RUN/tensorboard, a step an epoch.

TensorBoard shows whatever its files hold, so a run that goes on must not write an epoch again.
What the files hold is read first, and what they miss is written. Where an epoch is trained anew,
a record tells TensorBoard to forget it and all after it (``SessionLog.START`` at its step).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ray_xml.follow import Line, Listener
from ray_xml.run_records import scalars

_HEAD, _TAIL = 12, 4  # bytes of a record around its content: length and checksum, checksum


class TensorBoardLogger(Listener):
    """Writes to the folder ``RUN/tensorboard``."""

    name = "TensorBoard"

    def __init__(self, run: Path) -> None:
        self._folder = run / "tensorboard"
        self._writer: EventsWriter | None = None
        self._told: set[int] = set()

    def begin(self, lines: Sequence[Line]) -> None:
        self._close()
        self._told = steps_in(self._folder)
        missing = [line["epoch"] for line in lines if line["epoch"] not in self._told]
        done = max((line["epoch"] for line in lines), default=0)
        self._open_at(min([*missing, done + 1]))
        for line in lines:
            if line["epoch"] not in self._told:
                self._write(line)

    def epoch(self, line: Line) -> None:
        if line["epoch"] in self._told:  # trained anew
            self._close()
            self._open_at(line["epoch"])
        self._write(line)

    def end(self, status: str) -> None:
        self._close()

    def _open_at(self, step: int) -> None:
        """A new file, from whose first record on nothing counts that was at ``step`` or later."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names, which begin with the second.
        number = len(list(self._folder.glob("events.out.tfevents.*")))
        self._writer = EventsWriter(str(self._folder / "events"), f".{number:05d}")
        self._add(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        self._told = {one for one in self._told if one < step}

    def _write(self, line: Line) -> None:
        values = [
            Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line).items()
        ]
        self._add(Event(step=line["epoch"], summary=Summary(value=values)))
        self._told.add(line["epoch"])

    def _add(self, event: Event) -> None:
        assert self._writer is not None, "begin comes first"
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def steps_in(folder: Path) -> set[int]:
    """Steps that TensorBoard shows values of, out of its files in ``folder``."""
    steps: set[int] = set()
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for event in _events(file.read_bytes()):
            if event.session_log.status == SessionLog.START:
                steps = {step for step in steps if step < event.step}
            elif event.summary.value:
                steps.add(event.step)
    return steps


def _events(content: bytes) -> list[Any]:
    """The records of a file up to one that was cut."""
    found, at = [], 0
    while at + _HEAD <= len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        end = at + _HEAD + length
        if end + _TAIL > len(content):
            break
        try:
            found.append(Event.FromString(content[at + _HEAD : end]))
        except DecodeError:
            break
        at = end + _TAIL
    return found
