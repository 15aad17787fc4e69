"""The command line as a user starts it, and the processes that come of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
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


def carrying(variable: str, value: str) -> list[tuple[psutil.Process, str]]:
    """The living processes with an environment variable that has the value, and their titles.

    Read here and not by psutil, which stops at an empty entry: a process that sets its title, as
    Ray's do, may leave some in front of the others.
    """
    entry = f"{variable}={value}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            if entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                found.append((process, " ".join(process.cmdline()) or process.name()))
        except (OSError, psutil.Error):  # gone, a zombie, or another user's
            continue
    return found


class Command:
    """``ray-xml ARGUMENTS`` in a process group of its own; its offspring carry a mark.

    What a terminal sends on Ctrl-C goes to the group, and so does ``interrupt``.

    Args:
        program: what Python runs with the arguments.
        environment: added to this process's.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path,
        program: Sequence[object] = ("-m", "ray_xml.cli"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._out, self._err = folder / f"{self._mark}.out", folder / f"{self._mark}.err"
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, program), *map(str, arguments)],
                cwd=folder,
                env={**os.environ, **(environment or {}), _MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def end(self, seconds: float = TIMEOUT) -> tuple[int, str, str]:
        """(exit status, standard output, standard error), once it has ended."""
        status = self._process.wait(seconds)
        return status, self._out.read_text(), self._err.read_text()

    def said(self) -> str:
        """Its standard output so far."""
        return self._out.read_text()

    def running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Only the driver, as a service manager does."""
        self._process.terminate()

    def kill(self) -> None:
        """Only the driver, as the kernel would when memory runs out."""
        self._process.kill()

    def pids(self, title: str) -> list[int]:
        """The living processes with a title that begins like this."""
        return [process.pid for process, name in self._alive() if name.startswith(title)]

    def offspring(self) -> list[str]:
        """Names of the processes that this command started and that are alive."""
        return [name for _, name in self._alive()]

    def clean_up(self) -> None:
        """Ends what is left."""
        for process, _ in self._alive():
            process.kill()
        self._process.wait(TIMEOUT)

    def _alive(self) -> list[tuple[psutil.Process, str]]:
        return [
            (process, title.partition(" ")[0]) for process, title in carrying(_MARK, self._mark)
        ]


def ray_xml(*arguments: object, folder: Path) -> tuple[int, str, str]:
    """Runs a command to its end."""
    command = Command(*arguments, folder=folder)
    try:
        return command.end()
    finally:
        command.clean_up()
