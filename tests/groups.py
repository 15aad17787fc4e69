"""Real gloo groups for the tests: a few processes that stay up and run one task after another."""

from __future__ import annotations

import os
import tempfile
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

_TIMEOUT = 120.0


class Groups:
    """Runs a function on every rank of a group of 1 to ``most`` processes.

    Functions live at a module's top level; what goes in and out are plain values and arrays.
    """

    def __init__(self, most: int) -> None:
        self._context = torch.multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._tasks = 0
        self._members: list[tuple[Any, Connection]] = []
        self.most = most

    def run(self, size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``function(*args)`` returned on each rank."""
        assert size <= self.most
        while len(self._members) < size:
            here, there = self._context.Pipe()
            process = self._context.Process(target=_serve, args=(there,), daemon=True)
            process.start()
            self._members.append((process, here))
        self._tasks += 1
        store = str(Path(self._folder.name) / f"task-{self._tasks}")
        members = self._members[:size]
        for rank, (_, pipe) in enumerate(members):
            pipe.send((function, args, store, rank, size))
        answers = []
        for rank, (_, pipe) in enumerate(members):
            if not pipe.poll(_TIMEOUT):
                self.close()
                raise TimeoutError(f"rank {rank} of {size} did not answer in {_TIMEOUT} s")
            answers.append(pipe.recv())
        failed = [text for good, text in answers if not good]
        assert not failed, "\n".join(failed)
        return [value for _, value in answers]

    def close(self) -> None:
        for process, _ in self._members:
            process.terminate()
            process.join()
        self._members.clear()
        self._folder.cleanup()


def _serve(pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    warnings.simplefilter("error")
    while True:
        function, args, store, rank, size = pipe.recv()
        try:
            dist.init_process_group(
                "gloo", init_method=f"file://{store}", rank=rank, world_size=size
            )
            answer = (True, function(*args))
        except BaseException:
            answer = (False, f"rank {rank} of {size}: {traceback.format_exc()}")
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        pipe.send(answer)
