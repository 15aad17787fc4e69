"""Host arrays to the device without waiting for it.

A copy from ordinary memory makes the host wait until the device has done all work queued before
it, which would end the overlap of building a batch with training on the one before. From pinned
memory the copy itself is queued. Torch's allocator keeps the pinned block until it is through.
"""

from __future__ import annotations

import torch
from torch import Tensor


def placed(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on ``device``; what is queued on the same stream later sees the values."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
