"""The shortlists of the training documents: searched for while the first epoch of a cycle trains.

The epoch's documents, in its order, are cut into stretches of a few batches. Each worker asks the
label ranges for its share of a stretch, and for a few stretches ahead; before the first batch of a
stretch the workers gather each other's shares. So searching goes on beside training, and what is
waited for is what training could not hide. Each worker also writes its share into one file of the
run folder, from which the cycle's later epochs take it. The file is in the order of that first
epoch, so that a share is one stretch of it.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ray_xml import partition
from ray_xml.exchange import Exchange
from ray_xml.ranges import Block, Ranges
from ray_xml.scoring import candidates
from ray_xml.shortlist import ShortlistConfig

_STRETCH = 4096  # documents searched for together, about
_AHEAD = 2  # stretches found and not yet trained on

Listed = Iterator[tuple[np.ndarray, np.ndarray]]  # documents int64 [n], their lists int32 [n, k]


def stretch_of(size: int) -> int:
    """Documents searched for together, in batches of ``size``."""
    return max(1, round(_STRETCH / size)) * size


@dataclass(frozen=True)
class Shortlists:
    """The shortlists of one cycle.

    Attributes:
        path: int32 [documents, width] in a file, −1 for none, once all of it is there.
        order: int64 [documents], the documents in the file's order, the cycle's first epoch's.
        config: resolved.
    """

    path: Path
    order: np.ndarray
    config: ShortlistConfig

    def read(self, order: np.ndarray, size: int) -> Listed:
        """Batches of ``size`` documents in ``order``, from the file."""
        lists = np.memmap(self.path, np.int32, "r", shape=(len(self.order), self.config.width))
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            yield batch, lists[place[batch]]

    def search(
        self,
        size: int,
        ranges: Ranges,
        exchange: Exchange,
        device: torch.device,
        waiting: Callable[[bool], None],
    ) -> Listed:
        """Batches of ``size`` documents in the file's order, searched for as they are needed;
        leaves the file behind. Every worker must draw its iterator alike and to the end.

        Args:
            ranges: with proxies (and rows) and embeddings of this cycle.
            device: where the workers' exchange works.
            waiting: told when waiting for the ranges begins and ends.
        """
        draft = self.path.with_name(self.path.name + ".unfinished")
        if exchange.rank == 0:
            draft.parent.mkdir(parents=True, exist_ok=True)
            for old in draft.parent.iterdir():
                old.unlink()
            draft.touch()
        exchange.barrier()
        length = stretch_of(size)
        starts = range(0, len(self.order), length)
        stretches = [self.order[start : start + length] for start in starts]
        own = [slice(*partition.even(len(one), exchange.size)[exchange.rank]) for one in stretches]

        def blocks() -> Iterator[Block]:
            for number, (stretch, part) in enumerate(zip(stretches, own, strict=True)):
                yield number, stretch[part], None

        def found() -> Iterator[np.ndarray]:
            searched = ranges.search(blocks(), self.config.listed, self.config.sources, False)
            for _, answer in searched:
                yield candidates(answer).labels

        with (
            open(draft, "r+b") as file,
            closing(_in_background(found(), _AHEAD)) as answers,
        ):
            for start, stretch, part in zip(starts, stretches, own, strict=True):
                waiting(True)
                mine = np.ascontiguousarray(next(answers), np.int32)
                file.seek(4 * self.config.width * (start + part.start))
                file.write(mine.data)
                together = _gathered(mine, len(stretch), exchange, device)
                waiting(False)
                for first in range(0, len(stretch), size):
                    some = slice(first, first + size)
                    yield stretch[some], together[some]
            file.flush()
            os.fsync(file.fileno())
        exchange.barrier()
        if exchange.rank == 0:
            os.replace(draft, self.path)
        exchange.barrier()


def _gathered(mine: np.ndarray, count: int, exchange: Exchange, device: torch.device) -> np.ndarray:
    """int32 [count, k]: the rows of all workers, whose shares differ by one row at most."""
    if exchange.size == 1:
        return mine
    longest = -(-count // exchange.size)
    padded = np.pad(mine, ((0, longest - len(mine)), (0, 0)))
    rows = exchange.gather_rows(torch.from_numpy(padded).to(device)).cpu().numpy()
    shares = [high - low for low, high in partition.even(count, exchange.size)]
    return np.concatenate([rows[i * longest : i * longest + n] for i, n in enumerate(shares)])


def _in_background(items: Iterator[np.ndarray], ahead: int) -> Generator[np.ndarray]:
    """The same items, up to ``ahead`` of them made in a thread before they are asked for."""
    made: queue.Queue[np.ndarray | BaseException | None] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(item: np.ndarray | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return made.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # told to whoever asks for the next item
            put(error)

    thread = threading.Thread(target=work, name="shortlists", daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
