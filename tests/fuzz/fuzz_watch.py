"""What counts as a finding, and keeping it.

A finding is any exception that is no ``RayXmlError`` (a target lets those pass), an input that
takes longer than ``SECONDS``, and one that makes the process larger by more than ``GROWTH``.
Address space is limited, so that a wish for terabytes fails as it would on a full machine.
"""

from __future__ import annotations

import hashlib
import json
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

SECONDS = 5.0  # of processor time
GROWTH = 384 << 20  # bytes
DONE = "done.json"  # the inputs and seconds of a process so far
ROOM = 3 << 30  # bytes of address space beyond what the process begins with


class Watch:
    """A target that keeps its findings instead of raising them."""

    def __init__(self, target: Callable[[bytes], None], folder: Path) -> None:
        self._target, self._folder = target, folder
        warnings.simplefilter("ignore")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        self._peak = _peak()
        self._first = True
        self._inputs, self._begun, self._noted = 0, time.monotonic(), 0.0

    def __call__(self, data: bytes) -> None:
        begun = time.process_time()  # that of a loaded machine's clock would say little
        try:
            self._target(data)
        except Exception as error:
            self._keep(data, *_place(error))
        taken = time.process_time() - begun
        if taken > SECONDS:
            self._keep(data, "slow", [f"{taken:.1f} s"])
        peak = _peak()
        if peak - self._peak > GROWTH and not self._first:
            self._keep(data, "memory", [f"{(peak - self._peak) >> 20} MiB"])
        self._peak, self._first = max(peak, self._peak), False
        self._inputs += 1
        if time.monotonic() - self._noted > 0.5:
            # Noted often, since a process that dies cannot do it then.
            self._noted = time.monotonic()
            done = {"inputs": self._inputs, "seconds": self._noted - self._begun}
            (self._folder / DONE).write_text(json.dumps(done))

    def _keep(self, data: bytes, kind: str, frames: list[str]) -> None:
        place = frames[-1] if ":" in kind else ""
        key = hashlib.sha256(f"{kind.partition(':')[0]} {place}".encode())
        path = self._folder / f"finding-{key.hexdigest()[:10]}.json"
        if not path.exists():
            path.with_suffix(".bin").write_bytes(data)
            path.write_text(json.dumps({"kind": kind, "frames": frames}, indent=1))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _place(error: Exception) -> tuple[str, list[str]]:
    """(type and message, the frames up to the last one in ray_xml)."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [i for i, frame in enumerate(frames) if "/ray_xml/" in frame.filename]
    shown = [
        f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames[: max(ours, default=0) + 1]
    ]
    return f"{type(error).__name__}: {str(error)[:200]}", shown or ["?"]
