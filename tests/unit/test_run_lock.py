"""Run locks: between real processes, some of them killed."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from ray_xml.errors import ConfigError, TrainingError
from ray_xml.run_lock import Holder, driver_lock, driver_of, wait_for_workers, worker_lock

Hold = Callable[[Callable[..., object]], BaseProcess]


def hold(lock: Callable[..., object], run: Path, told: Connection) -> None:
    with lock(run):  # type: ignore[attr-defined]
        told.send(os.getpid())
        time.sleep(300)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Hold]:
    """Starts a process that holds a lock on the run folder until it is killed."""
    started: list[BaseProcess] = []

    def start(lock: Callable[..., object]) -> BaseProcess:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=hold, args=(lock, tmp_path / "run", there))
        process.start()
        started.append(process)
        assert here.poll(60)
        here.recv()
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_driver_is_told_who_has_the_run(tmp_path: Path, held: Hold) -> None:
    other = held(driver_lock)
    said = rf"run is being trained already by process {other.pid} on \S+; wait for it, stop it"
    with pytest.raises(ConfigError, match=said), driver_lock(tmp_path / "run"):
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    # A killed one leaves the file, but not the lock.
    assert (tmp_path / "run" / ".lock").exists()
    with driver_lock(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_of_many_that_start_at_once_one_gets_in(tmp_path: Path) -> None:
    inside, refused, most = [0], [0], [0]
    guard = threading.Lock()

    def start() -> None:
        for _ in range(50):
            try:
                with driver_lock(tmp_path / "run"):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    time.sleep(0.001)
                    with guard:
                        inside[0] -= 1
            except ConfigError:
                refused[0] += 1

    (tmp_path / "run").mkdir()
    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert 0 < refused[0] < 200


def test_new_workers_wait_for_the_old_ones(tmp_path: Path, held: Hold) -> None:
    run, said = tmp_path / "run", list[str]()
    run.mkdir()
    with worker_lock(run), worker_lock(run):
        pass  # workers hold it together
    wait_for_workers(run, 0, said.append)
    assert list(run.iterdir()) == []
    old = held(worker_lock)
    with pytest.raises(TrainingError, match=r"still hold .*\.workers after 0 s; end them"):
        wait_for_workers(run, 0, said.append)
    assert old.pid is not None
    threading.Timer(0.3, os.kill, (old.pid, signal.SIGKILL)).start()
    said.clear()
    began = time.monotonic()
    wait_for_workers(run, 60, said.append)
    assert time.monotonic() - began >= 0.2
    assert said == ["waiting for the workers of an earlier start to end"]
    assert list(run.iterdir()) == []


def test_a_folder_that_cannot_be_made_or_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="cannot be a run folder: "), driver_lock(path):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_nothing_came_into_goes_again(tmp_path: Path) -> None:
    with driver_lock(tmp_path / "made"):
        assert (tmp_path / "made").is_dir()
    assert not (tmp_path / "made").exists()
    (tmp_path / "held").mkdir()
    with driver_lock(tmp_path / "held"):
        (tmp_path / "held" / "config.yaml").touch()
    assert [path.name for path in (tmp_path / "held").iterdir()] == ["config.yaml"]


def test_asking_who_has_a_run(tmp_path: Path, held: Hold) -> None:
    run = tmp_path / "run"
    assert driver_of(run) is None
    other = held(driver_lock)
    assert driver_of(run) == Holder(socket.gethostname(), other.pid)
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    assert (run / ".lock").exists()
    assert driver_of(run) is None
    with driver_lock(run):
        (run / ".lock").write_text("{")  # not told yet, or no more
        assert driver_of(run) == Holder()
    assert driver_of(run) is None


def test_asking_keeps_no_driver_out(tmp_path: Path) -> None:
    run, stop = tmp_path / "run", threading.Event()
    run.mkdir()
    (run / "config.yaml").touch()

    def ask() -> None:
        while not stop.is_set():
            driver_of(run)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for one in askers:
        one.start()
    try:
        for _ in range(200):
            (run / ".lock").touch()  # as a killed driver leaves it
            with driver_lock(run):
                pass
    finally:
        stop.set()
        for one in askers:
            one.join()


def test_whoever_asks_does_not_count_as_a_driver(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    asking = os.open(run / ".lock", os.O_RDONLY | os.O_CREAT)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.2, os.close, (asking,)).start()
    began = time.monotonic()
    with driver_lock(run):
        assert time.monotonic() - began > 0.1
