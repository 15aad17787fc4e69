"""The command line as a user starts it, and the processes that come of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

_MARK = "RAY_XML_TEST_COMMAND"
TIMEOUT = 120.0


def wait_for(what: Callable[[], object], seconds: float = TIMEOUT) -> bool:
    """Whether ``what`` came true in time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Command:
    """``ray-xml ARGUMENTS`` in a process group of its own; its offspring carry a mark.

    What a terminal sends on Ctrl-C goes to the group, and so does ``interrupt``.
    """

    def __init__(self, *arguments: object, folder: Path) -> None:
        self._mark = uuid.uuid4().hex
        self._out, self._err = folder / f"{self._mark}.out", folder / f"{self._mark}.err"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray_xml.cli", *map(str, arguments)],
                cwd=folder,
                env={**os.environ, _MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self) -> tuple[int, str, str]:
        """(exit status, standard output, standard error), once it has ended."""
        status = self._process.wait(TIMEOUT)
        return status, self._out.read_text(), self._err.read_text()

    def running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Only the driver, as the kernel would when memory runs out."""
        self._process.kill()

    def offspring(self) -> list[str]:
        """Names of the processes that this command started and that are alive."""
        return [name for _, name in self._alive()]

    def clean_up(self) -> None:
        """Ends what is left."""
        for process, _ in self._alive():
            process.kill()
        self._process.wait(TIMEOUT)

    def _alive(self) -> list[tuple[psutil.Process, str]]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self._mark:
                    found.append((process, process.name()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # a zombie is no such process
                continue
        return found


def ray_xml(*arguments: object, folder: Path) -> tuple[int, str, str]:
    """Runs a command to its end."""
    command = Command(*arguments, folder=folder)
    try:
        return command.end()
    finally:
        command.clean_up()
