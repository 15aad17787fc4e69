"""The parts of a plan: what takes memory, in which process, on which node, and when.

A run goes through ``PHASES``. A part is there in some of them; a process needs as much as its
parts in the phase where they are most, and a node as much as its processes need in the same phase.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

PHASES = (
    "shards start",
    "token table",
    "sparse channel",
    "proxies",
    "rows",
    "validate",
    "train",
    "checkpoint",
    "evaluate",
)
RUN = PHASES[:-1]  # but evaluate, which is a process of its own
WORK = PHASES[2:-1]  # from when every worker has its share of the model
CYCLE = PHASES[3:-1]  # from the first refresh

Kind = Literal["memory", "cache", "store", "gpu"]


@dataclass(frozen=True)
class Part:
    """Bytes that are needed together.

    Attributes:
        phases: when they are there.
        kind: ``memory`` of the process; ``cache``, pages of a file that all processes of a node
            share, and that the kernel can drop; ``store``, Ray's object store, likewise shared, but
            not to be dropped; ``gpu``, on the process's GPU.
    """

    name: str
    nbytes: int
    phases: tuple[str, ...]
    kind: Kind = "memory"


@dataclass
class Process:
    """A process of the run, or several alike.

    Attributes:
        role: what it does.
        node: where it lies.
        gpus: the share of a GPU that it has.
    """

    role: str
    node: int
    gpus: float = 0.0
    parts: list[Part] = field(default_factory=list)

    def add(self, name: str, nbytes: float, phases: Iterable[str], kind: Kind = "memory") -> None:
        """Adds a part, unless it is nothing."""
        if nbytes > 0:
            self.parts.append(Part(name, int(nbytes), tuple(phases), kind))

    def at(self, phase: str, kind: Kind = "memory") -> int:
        """Bytes in ``phase``."""
        return sum(p.nbytes for p in self.parts if phase in p.phases and p.kind == kind)

    def most(self, kind: Kind) -> int:
        """The most bytes in any phase."""
        return max(self.at(phase, kind) for phase in PHASES)

    @property
    def peak(self) -> int:
        """The most bytes of its own memory in any phase."""
        return self.most("memory")

    @property
    def peak_phase(self) -> str:
        """When that is."""
        return max(PHASES, key=self.at)

    @property
    def resident(self) -> int:
        """What it keeps from the first refresh to the end of the run."""
        return sum(
            p.nbytes for p in self.parts if p.kind == "memory" and set(CYCLE) <= set(p.phases)
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "role": self.role,
            "node": self.node,
            "peak_bytes": self.peak,
            "peak_phase": self.peak_phase,
            "resident_bytes": self.resident,
            "gpu_bytes": self.most("gpu"),
            "parts": [
                {"name": p.name, "bytes": p.nbytes, "phases": list(p.phases), "kind": p.kind}
                for p in self.parts
            ],
        }


@dataclass(frozen=True)
class NodeNeed:
    """What one node has to hold.

    Attributes:
        peak: bytes, processes and object store, in the phase where they are most.
        phase: that phase.
        cache: bytes of files that the kernel should be able to keep, in the phase with the most.
        train_together: bytes, the most of both in one phase of ``ray-xml train``: what the
            processes' proportional set sizes add up to where nothing was dropped.
    """

    number: int
    peak: int
    phase: str
    cache: int
    train_together: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "node": self.number,
            "peak_bytes": self.peak,
            "phase": self.phase,
            "cache_bytes": self.cache,
            "train_together_bytes": self.train_together,
        }


def need_of(number: int, processes: Iterable[Process]) -> NodeNeed:
    """What the processes on a node need together."""
    own = [one for one in processes if one.node == number]
    held = {
        phase: sum(one.at(phase) for one in own) + _shared(own, phase, "store") for phase in PHASES
    }
    cached = {phase: _shared(own, phase, "cache") for phase in PHASES}
    phase = max(PHASES, key=lambda name: held[name])
    return NodeNeed(
        number,
        held[phase],
        phase,
        max(cached.values()),
        max(held[name] + cached[name] for name in RUN),
    )


def _shared(processes: list[Process], phase: str, kind: Kind) -> int:
    """Bytes of parts that processes share: of each name, the largest counts once."""
    largest: dict[str, int] = {}
    for one in processes:
        for part in one.parts:
            if part.kind == kind and phase in part.phases:
                largest[part.name] = max(largest.get(part.name, 0), part.nbytes)
    return sum(largest.values())
