"""What a server counts, in Prometheus' text format, over all of its processes.

Every process adds to a file of its own, an array of numbers that it has mapped, and whoever is
asked adds all files up. So counters are those of the whole server whichever process answers, cost
no message, and do not fall when a process ends and another takes its place: the file stays.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PATHS = ("/", "/docs", "/healthz", "/metrics", "/openapi.json", "/tag", "other")
STATUSES = (200, 400, 404, 405, 408, 413, 415, 500, 503)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_REQUESTS = len(PATHS) * len(STATUSES)
_GIVEN = _REQUESTS  # texts, labels
_LATENCY = _GIVEN + 2  # a count a bucket, those above all, the sum
_BATCH = _LATENCY + len(SECONDS) + 2
_SIZE = _BATCH + len(TEXTS) + 2
_ENDING = ".counts"


class Counts:
    """The counters of one process; one thread at a time may add to each kind."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: that of the server's processes, which all see it.
        """
        self._folder = folder
        # It gets its name when it is whole: somebody may be adding up.
        draft = folder / f"{uuid.uuid4().hex}.draft"
        draft.write_bytes(bytes(8 * _SIZE))
        mapped = np.memmap(draft.rename(draft.with_suffix(_ENDING)), np.float64, "r+")
        self._held = mapped.view(np.ndarray)  # a memmap's own indexing is slow

    def request(self, path: str, status: int) -> None:
        """A request that was answered; paths that there are not count as one."""
        row = PATHS.index(path) if path in PATHS else len(PATHS) - 1
        self._held[row * len(STATUSES) + STATUSES.index(status)] += 1

    def tagged(self, texts: int, labels: int, seconds: float) -> None:
        """A request whose texts got labels, ``seconds`` after it had come."""
        self._held[_GIVEN] += texts
        self._held[_GIVEN + 1] += labels
        self._observe(_LATENCY, SECONDS, seconds)

    def batch(self, texts: int) -> None:
        """Texts that were tagged together."""
        self._observe(_BATCH, TEXTS, texts)

    def _observe(self, first: int, bounds: tuple[float, ...], value: float) -> None:
        self._held[first + bisect_left(bounds, value)] += 1
        self._held[first + len(bounds) + 1] += value

    def text(self) -> str:
        """The counters of all processes, as a Prometheus server reads them."""
        total = np.zeros(_SIZE)
        for file in self._folder.glob(f"*{_ENDING}"):
            total += np.fromfile(file, np.float64)
        return "".join(f"{line}\n" for line in _lines(total))


def _lines(total: np.ndarray) -> Iterator[str]:
    name = "ray_xml_serve_requests_total"
    yield from _head(name, "counter", "Requests answered, by path and HTTP status.")
    for at, count in enumerate(total[:_REQUESTS].tolist()):
        path, status = PATHS[at // len(STATUSES)], STATUSES[at % len(STATUSES)]
        if count or (path, status) == ("/tag", 200):
            yield f'{name}{{path="{path}",status="{status}"}} {count:.0f}'
    for at, what in enumerate(("texts", "labels")):
        name = f"ray_xml_serve_{what}_total"
        yield from _head(name, "counter", f"{what.capitalize()} in answers to /tag.")
        yield f"{name} {total[_GIVEN + at]:.0f}"
    yield from _histogram(
        total[_LATENCY:_BATCH],
        SECONDS,
        "ray_xml_serve_tag_seconds",
        "Seconds from a request to /tag to its answer.",
    )
    yield from _histogram(
        total[_BATCH:], TEXTS, "ray_xml_serve_batch_texts", "Texts tagged together."
    )


def _histogram(held: np.ndarray, bounds: tuple[float, ...], name: str, what: str) -> Iterator[str]:
    yield from _head(name, "histogram", what)
    upto = np.cumsum(held[: len(bounds) + 1]).tolist()
    for bound, count in zip((*bounds, "+Inf"), upto, strict=True):
        yield f'{name}_bucket{{le="{bound}"}} {count:.0f}'
    yield f"{name}_sum {float(held[-1])!r}"
    yield f"{name}_count {upto[-1]:.0f}"


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"
