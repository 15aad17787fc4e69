"""What an epoch reports: one line of metrics.jsonl, and where its time went."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ray_xml.exchange import Exchange
from ray_xml.label_index import IndexState
from ray_xml.ranges import Ranges
from ray_xml.run_state import RunState


@dataclass
class Report:
    """One epoch, as one line of metrics.jsonl.

    Attributes:
        line: JSON-ready values: epoch, loss, rate, seconds by phase, …
        step_losses: float32 [steps], the loss of every step of the epoch.
    """

    line: dict[str, Any]
    step_losses: np.ndarray


@dataclass
class Clock:
    """Seconds by phase since the last ``take``; a phase lasts until the next one starts."""

    seconds: dict[str, float] = field(default_factory=dict)
    _phase: str | None = None
    _since: float = 0.0

    def start(self, phase: str | None) -> None:
        now = time.perf_counter()
        if self._phase is not None:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def so_far(self) -> dict[str, float]:
        """What ``take`` would return now."""
        self.start(self._phase)
        return {phase: round(value, 3) for phase, value in self.seconds.items()}

    def take(self) -> dict[str, float]:
        taken = self.so_far()
        self.seconds = {}
        return taken


def report(state: RunState, metric: str, seconds: dict[str, float], memory: int) -> Report:
    """The report of the epoch that ``state`` has just done.

    Args:
        metric: what "best" means.
        seconds: by phase, since the last report.
        memory: peak resident bytes over workers and label shards.
    """
    line: dict[str, Any] = {
        "epoch": state.epoch,
        "loss": round(float(state.step_losses.mean()), 5),
        "rate": state.rate,
        "docs_per_second": round(state.docs_per_second, 1),
        "bytes_sent_per_step": round(state.bytes_per_step),
        "candidates_per_step": round(state.candidates_per_step),
        "seconds": seconds,
        "memory_gib": round(memory / 2**30, 3),
    }
    checked = state.validation
    if checked is not None:
        line |= {
            "proxy_loss": round(state.proxy_loss, 5),
            "indexes": _indexes(state.indexes),
            "shortlist_recall": round(checked.recall, 2),
            "candidate_recall": round(checked.candidate_recall, 2),
            "validation": {key: round(value, 3) for key, value in checked.results.items()},
            "best": {"epoch": state.best_epoch, "metric": metric},
        }
    return Report(line, state.step_losses)


def _indexes(states: list[IndexState]) -> dict[str, Any]:
    """By source: the kinds in use, the least recall of them, and of those tried, in percent."""
    by_source: dict[str, Any] = {}
    for source in sorted({one.source for one in states}):
        some = [one for one in states if one.source == source]
        kinds = sorted({kind for one in some for kind in one.tried})
        tried = {k: min(one.tried[k] for one in some if k in one.tried) for k in kinds}
        by_source[source] = {
            "kinds": sorted({one.kind for one in some}),
            "recall": round(100.0 * min(one.recall for one in some), 2),
            "tried": {kind: round(100.0 * recall, 2) for kind, recall in tried.items()},
        }
    return by_source


def peak_memory(exchange: Exchange, ranges: Ranges, device: torch.device) -> int:
    """Peak resident bytes over the workers and the label shards, a shared page as often as it is
    shared; every worker calls this, and rank 0's answer counts."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    workers = exchange.sum_(torch.tensor([float(own)], device=device))
    return int(workers.item()) + (ranges.peak_memory() if exchange.rank == 0 else 0)
