"""Numbers to small integers and back, by a scale for each row.

A row's numbers become whole multiples of its scale, the step. The scale is rounded first and the
numbers are then rounded to multiples of what is stored, so no error is made twice.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ray_xml.errors import ExportError

Dtype = Literal["fp16", "int8"]

_HALF, _SINGLE = np.finfo(np.float16), np.finfo(np.float32)


def check_peaks(name: str, peaks: np.ndarray, dtype: Dtype) -> None:
    """Refuses rows whose largest magnitude (float32 [n]) ``dtype`` cannot hold."""
    wrong = np.flatnonzero(~np.isfinite(peaks))
    if len(wrong):
        raise ExportError(
            f"{name}: row {wrong[0]:,} holds a NaN or an infinity ({len(wrong):,} such rows); "
            "export another checkpoint"
        )
    large = np.flatnonzero(peaks > _HALF.max)
    if dtype == "fp16" and len(large):
        raise ExportError(
            f"{name}: row {large[0]:,} holds {peaks[large[0]]:.4g}, float16 ends at "
            f"{float(_HALF.max):,.0f}; export as int8"
        )


def scales(peaks: np.ndarray, levels: int) -> np.ndarray:
    """The step of each row, as stored: float16 [n] if it can hold all to 11 bits, else float32.

    ``levels`` · scale is finite in float32 and at least ``peaks`` less half a step. A row of
    zeros has scale 0.
    """
    exact = peaks.astype(np.float64) / levels
    used = exact[exact > 0]
    if not used.size or (used.min() >= _HALF.smallest_normal and used.max() <= _HALF.max):
        return exact.astype(np.float16)
    # Subnormal steps would be coarse themselves, and a step rounded up could pass the maximum.
    scale = np.where(exact > 0, np.maximum(exact, _SINGLE.smallest_normal), 0).astype(np.float32)
    beyond = scale.astype(np.float64) * levels > _SINGLE.max
    return np.where(beyond, np.nextafter(scale, np.float32(0)), scale)


def quantise(values: np.ndarray, scale: np.ndarray, levels: int) -> np.ndarray:
    """float32: whole multiples of the scale as stored, at most ``levels``."""
    steps = np.where(scale > 0, scale, 1).astype(np.float32)
    multiples: np.ndarray = np.rint(np.asarray(values, np.float32) / steps)
    return multiples.clip(-levels, levels, out=multiples)
