"""A function applied to many items by several processes, a few items ahead, in the items' order."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ray_xml.errors import ResourceError

Item = TypeVar("Item")
Result = TypeVar("Result")
_AHEAD = 2  # items under way or waiting for each process
_task: Callable[[Any], Any] | None = None  # of this process, where it is one of the pool's


def available_cpus() -> int:
    """The CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    task: Callable[[Item], Result], items: Iterable[Item], *, processes: int
) -> Iterator[Result]:
    """``map(task, items)``, by so many processes; with one, by this one.

    ``items`` is read only a few items ahead of what was taken, so it may be of any length. The
    processes are fresh interpreters: ``task`` is sent to each of them once.

    Raises:
        ResourceError: a process died.
    """
    if processes == 1:
        yield from map(task, items)
        return
    # A forked child would inherit the locks of whatever threads the caller runs.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(task,))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_do, item))
            if len(waiting) >= _AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that reads the documents died, perhaps for lack of memory; use fewer "
            "(--processes), or fewer features"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(task: Callable[[Any], Any]) -> None:
    global _task
    _task = task
    # Ctrl-C reaches every process of the terminal, and it is the first one that ends the rest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(item: Any) -> Any:
    assert _task is not None
    return _task(item)
