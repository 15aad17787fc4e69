"""Times on a device that works behind the host's back, and what that device can do at most.

Peaks are measured in the same run, by a large copy and large matrix products, since a data sheet
knows neither the card's clock nor its power limit.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch


def synchronise(device: torch.device) -> None:
    """Waits until ``device`` has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(
    work: Callable[[], object], device: torch.device, *, warm_up: int = 2, repeats: int = 5
) -> float:
    """The median time of ``work``, from an idle device to an idle device."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def begin_memory(device: torch.device) -> None:
    """Forgets the peak so far."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    """GiB of tensors on the device at most since ``begin_memory``; None on a CPU."""
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 2**30


@dataclass(frozen=True)
class Peaks:
    """What the device does at most: FLOP/s of products by their type, bytes/s of a copy.

    Attributes:
        float32: with the precision of float32 products that the run has.
    """

    bfloat16: float
    float32: float
    memory: float

    @staticmethod
    def measure(device: torch.device, *, size: int, copied: int) -> Peaks:
        """By products of square matrices of ``size`` and a copy of ``copied`` bytes."""

        def product_rate(kind: torch.dtype) -> float:
            left = torch.randn(size, size, device=device).to(kind)
            return 2 * size**3 / median_seconds(lambda: left @ left, device)

        source = torch.zeros(copied // 4, device=device)
        target = torch.empty_like(source)
        seconds = median_seconds(lambda: target.copy_(source), device)
        moved = 2 * source.nbytes / seconds
        return Peaks(product_rate(torch.bfloat16), product_rate(torch.float32), moved)

    def product_rate(self, kind: torch.dtype) -> float:
        """FLOP/s of products of ``kind``."""
        return self.bfloat16 if kind == torch.bfloat16 else self.float32

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def machine(device: torch.device) -> dict[str, Any]:
    """The device as the results keep it."""
    if device.type != "cuda":
        return {"device": platform.processor() or platform.machine(), "torch": torch.__version__}
    card = torch.cuda.get_device_properties(device)
    return {
        "device": card.name,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }
