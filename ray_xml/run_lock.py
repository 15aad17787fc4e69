"""Who is at work on a run folder: one driver, and only the workers that it started last.

Both rest on ``flock``: the kernel lets go of a lock when its process ends, however it ends, so a
killed run leaves nothing that would have to be cleared away. The driver holds ``.lock`` alone.
Workers hold ``.workers`` together, and a driver waits until nobody holds it before it starts new
ones: no worker of a lost or killed start can still write.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ray_xml.errors import ConfigError, TrainingError
from ray_xml.json_text import parse_json

DRIVER, WORKERS = ".lock", ".workers"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
_POLL_SECONDS = 0.1


@contextmanager
def driver_lock(run: Path) -> Iterator[None]:
    """Makes the run folder if it is not there, and has it for this process alone.

    Raises:
        ConfigError: another process has it, or it cannot be written.
    """
    existed = run.exists()
    try:
        run.mkdir(parents=True, exist_ok=True)
        held = _alone(run / DRIVER)
    except BlockingIOError:
        raise ConfigError(
            f"{run} is being trained already{_holder(run / DRIVER)}; wait for it, stop it, or "
            "choose another run folder"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{run} cannot be a run folder: {error.strerror}; choose one that can be written"
        ) from error
    try:
        told = {"host": socket.gethostname(), "pid": os.getpid()}
        os.truncate(held, 0)
        os.write(held, json.dumps(told).encode())
        yield
    finally:
        with suppress(TrainingError):  # after an interrupt they may take a moment longer
            wait_for_workers(run, 0, lambda _: None)
        _remove(run / DRIVER, held)
        if not existed and not any(run.iterdir()):
            run.rmdir()


@dataclass(frozen=True)
class Holder:
    """Who has a run folder, as far as they have told: None where the file does not say it."""

    host: str | None = None
    pid: int | None = None


def driver_of(run: Path) -> Holder | None:
    """The driver that has the run folder now, or None; changes nothing.

    Where the file system cannot lock, a file that a killed driver left counts as one.
    """
    path = run / DRIVER
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError) or error.errno in _NO_LOCKS:
            return _told(path)
        raise
    finally:
        os.close(file)
    return None


@contextmanager
def worker_lock(run: Path) -> Iterator[None]:
    """Held by a worker for as long as it may write into the run folder."""
    held = _open(run / WORKERS, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(held)


def wait_for_workers(run: Path, seconds: float, say: Callable[[str], None]) -> None:
    """Waits until no worker of an earlier start is left.

    Raises:
        TrainingError: some still are after ``seconds``.
    """
    end, told = time.monotonic() + seconds, False
    while True:
        try:
            held = _open(run / WORKERS, fcntl.LOCK_EX)
            break
        except BlockingIOError:
            if time.monotonic() > end:
                raise TrainingError(
                    f"workers of an earlier start still hold {run / WORKERS} after {seconds:.0f} "
                    "s; end them (`ray job stop` or by their pids), then give the same command"
                ) from None
            if not told:
                say("waiting for the workers of an earlier start to end")
                told = True
            time.sleep(_POLL_SECONDS)
    _remove(run / WORKERS, held)


def _alone(path: Path) -> int:
    """``_open`` for a driver: ``driver_of`` holds the file for a moment, which must not count."""
    while True:
        try:
            return _open(path, fcntl.LOCK_EX)
        except BlockingIOError:
            os.close(_open(path, fcntl.LOCK_SH))  # refused as well where it is another driver
            time.sleep(0.001)


def _open(path: Path, kind: int) -> int:
    """A descriptor of the locked file, which is still the one under its name."""
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(held, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(held)
                raise
            print(
                f"{path.parent}: its file system cannot lock ({error.strerror}), so nothing keeps "
                "a second start from this run folder",
                file=sys.stderr,
            )
        try:
            if os.fstat(held).st_ino == path.stat().st_ino:
                return held
        except FileNotFoundError:
            pass
        os.close(held)  # the last holder took it away in between


def _remove(path: Path, held: int) -> None:
    """Takes the file away and lets go of it, in this order: nobody can lock it in between."""
    path.unlink(missing_ok=True)
    os.close(held)


def _holder(path: Path) -> str:
    told = _told(path)
    return "" if told.pid is None else f" by process {told.pid} on {told.host}"


def _told(path: Path) -> Holder:
    try:
        told = parse_json(path.read_bytes())
        return Holder(str(told["host"]), int(told["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Holder()
