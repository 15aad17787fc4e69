"""Label ranges that live in the test's process and serve the workers of a gloo group.

What ``ray_xml.cluster.label_shards`` does with Ray, in a few lines of the standard library.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from multiprocessing.managers import BaseManager
from threading import Lock, Thread
from typing import Any

from ray_xml.label_search import Found
from ray_xml.ranges import Block, LocalRanges

_KEY = b"tests"


class _Served:
    """Calls by name with pickled arguments, so that no memory is shared behind our back.

    One call at a time, as a Ray actor takes them.
    """

    def __init__(self, ranges: LocalRanges) -> None:
        self._ranges = ranges
        self._lock = Lock()

    def call(self, name: str, arguments: bytes) -> bytes:
        with self._lock:
            result = getattr(self._ranges, name)(*pickle.loads(arguments))
            return pickle.dumps(list(result) if name == "search" else result)


def serve(ranges: LocalRanges) -> tuple[str, int]:
    """Serves ``ranges`` from a thread of this process; returns the address."""

    class Manager(BaseManager):
        pass

    served = _Served(ranges)
    Manager.register("ranges", callable=lambda: served)
    server = Manager(("127.0.0.1", 0), _KEY).get_server()
    Thread(target=server.serve_forever, daemon=True).start()
    return server.address


class SharedRanges:
    """``Ranges`` as a worker sees them."""

    def __init__(self, address: tuple[str, int]) -> None:
        class Manager(BaseManager):
            pass

        Manager.register("ranges")
        manager = Manager(address, _KEY)
        manager.connect()
        self._far = manager.ranges()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._call(name, *arguments)

    def _call(self, name: str, *arguments: Any) -> Any:
        return pickle.loads(self._far.call(name, pickle.dumps(arguments)))

    def search(
        self,
        blocks: Iterable[Block],
        k: int,
        sources: tuple[str, ...],
        both_scores: bool,
    ) -> Iterator[tuple[int, Found]]:
        for block in blocks:
            yield from self._call("search", [block], k, sources, both_scores)
