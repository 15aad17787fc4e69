"""An exported model's arrays made small, and read back.

Dense rows become float16, or int8 with one scale a row. Sparse rows become counts, steps between
ascending ids, and values at 8 or 16 bits:

    NAME.fp16         float16 [n, D]
    NAME.int8         int8 [n, D], −127..127; value = int8 · scale of the row
    NAME.counts       uint8, uint16 or uint32 [n]: entries of each row
    NAME.steps        uint16 or uint32 [nnz]: a row's first id, then differences to the id before
    NAME.steps_high   uint8 [nnz]: bits 16..23 of the steps, where 16 are too few and 24 enough
    NAME.values       uint8, int8 (· scale) or float16 [nnz]; not there for a 0/1 matrix
    NAME.num_columns  int64 [1]
    NAME.scale        float16 or float32 [n]: beside int8 rows or 8-bit values

Reading trusts nothing: the arrays may come from a damaged or hostile file. ``compact_file`` is
the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ray_xml.errors import CheckpointError, ExportError
from ray_xml.partition import Range, overlap
from ray_xml.quantise import Dtype, check_peaks, quantise, scales
from ray_xml.sparse import Csr

Tensors = Mapping[str, np.ndarray]

_BLOCK = 1 << 22  # numbers worked on at a time: bounds the scratch memory
_MOST = 2**31 - 1  # rows and columns are numbered by int32


def pack_rows(name: str, rows: np.ndarray, dtype: Dtype) -> dict[str, np.ndarray]:
    """Dense rows, made small.

    int8 keeps a number to within half a step of its row, max|row| / 254; fp16 to 11 bits, or
    to 3e-8 where it is below 6e-5.

    Args:
        rows: float32 or float16 [n, D]; may be memory-mapped.

    Raises:
        ExportError: a number is NaN or infinite, or too large for float16; names the row.
    """
    n, dim = rows.shape
    peaks = np.zeros(n, np.float32)
    for low, high in _row_ranges(n, dim):
        # The maximum of a row with a NaN is NaN.
        peaks[low:high] = np.abs(rows[low:high]).max(axis=1, initial=0)
    check_peaks(name, peaks, dtype)
    if dtype == "fp16":
        return {f"{name}.fp16": rows.astype(np.float16, copy=False)}
    scale = scales(peaks, 127)
    packed = np.empty((n, dim), np.int8)
    for low, high in _row_ranges(n, dim):
        block = rows[low:high].astype(np.float32, copy=False)
        packed[low:high] = quantise(block, scale[low:high, None], 127)
    return {f"{name}.int8": packed, f"{name}.scale": scale}


def shape_of_rows(
    name: str, tensors: Tensors, source: str | Path = "exported model"
) -> tuple[int, int]:
    """(n, D) of packed rows, checked as ``unpack_blocks`` does."""
    packed, _ = _packed_rows(name, tensors, source)
    return packed.shape[0], packed.shape[1]


def unpack_rows(
    name: str,
    tensors: Tensors,
    source: str | Path = "exported model",
    kind: np.dtype[Any] | type[np.floating] = np.float32,
    held: Range | None = None,
) -> np.ndarray:
    """``kind`` [n, D]: all rows, or those in the range ``held``; all are checked either way, and
    other arguments and errors are those of ``unpack_blocks``."""
    count, dim = shape_of_rows(name, tensors, source)
    held = held or (0, count)
    rows = np.empty((held[1] - held[0], dim), kind)
    for low, block in unpack_blocks(name, tensors, source):
        shared = overlap((low, low + len(block)), held)
        if shared is not None:
            first, last = shared
            rows[first - held[0] : last - held[0]] = block[first - low : last - low]
    return rows


def unpack_blocks(
    name: str, tensors: Tensors, source: str | Path = "exported model", *, rows: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, float32 [at most ``rows``, D]) in order, so that all are never held twice.

    Args:
        tensors: what ``pack_rows`` made, among other arrays.
        source: where the arrays are from, for messages.
        rows: rows at a time; as many as make 16 MiB if None.

    Raises:
        CheckpointError: an array is missing, of a wrong type or shape, or holds a number that
            ``pack_rows`` never writes.
    """
    packed, scale = _packed_rows(name, tensors, source)
    for low, high in _row_ranges(packed.shape[0], packed.shape[1], rows):
        block = packed[low:high].astype(np.float32)
        if scale is not None:
            if block.min(initial=0) < -127:
                raise _damaged(source, f"{name}.int8", "holds −128, which is never written")
            block *= scale[low:high, None]
        elif not np.isfinite(block).all():
            raise _damaged(source, f"{name}.fp16", "holds numbers that are not finite")
        yield low, block


def pack_csr(name: str, rows: Csr, dtype: Dtype) -> dict[str, np.ndarray]:
    """Sparse rows, made small: ids exactly, values as for ``pack_rows``.

    Without negative values int8 is uint8 with half the step, max(row) / 510. An entry whose value
    rounds to 0 stays an entry.

    Raises:
        ExportError: ids out of range or not ascending, or values as for ``pack_rows``; names the
            row.
    """
    rows = rows.packed()
    counts, ids = rows.counts, rows.ids
    filled = np.flatnonzero(counts)
    starts = rows.offsets[:-1][filled]
    if rows.nnz and not 0 <= ids.min() <= ids.max() < rows.num_columns:
        raise ExportError(f"{name}: ids outside of 0..{rows.num_columns - 1:,}; rebuild the matrix")
    # Steps are small where ids are dense, and small numbers are what a compressor can use.
    steps = np.diff(ids, prepend=np.int32(0))
    steps[starts] = ids[starts]
    if rows.nnz and steps.min() < 0:
        row = int(np.searchsorted(rows.offsets, int(steps.argmin()), "right")) - 1
        raise ExportError(f"{name}: the ids of row {row:,} do not ascend; sort them")
    packed = {
        f"{name}.counts": counts.astype(_smallest(int(counts.max(initial=0)))),
        f"{name}.num_columns": np.array([rows.num_columns], np.int64),
    }
    if rows.num_columns <= 1 << 16:
        packed[f"{name}.steps"] = steps.astype(np.uint16)
    elif rows.num_columns <= 1 << 24:
        packed[f"{name}.steps"] = (steps & 0xFFFF).astype(np.uint16)
        packed[f"{name}.steps_high"] = (steps >> 16).astype(np.uint8)
    else:
        packed[f"{name}.steps"] = steps.astype(np.uint32)
    if rows.values is None:
        return packed
    peaks = np.zeros(rows.num_rows, np.float32)
    if rows.nnz:
        peaks[filled] = np.maximum.reduceat(np.abs(rows.values), starts)
    check_peaks(name, peaks, dtype)
    if dtype == "fp16":
        packed[f"{name}.values"] = rows.values.astype(np.float16)
        return packed
    signed = bool(rows.values.min(initial=0) < 0)
    levels = 127 if signed else 255
    scale = scales(peaks, levels)
    values = quantise(rows.values, np.repeat(scale, counts), levels)
    packed[f"{name}.values"] = values.astype(np.int8 if signed else np.uint8)
    packed[f"{name}.scale"] = scale
    return packed


def unpack_csr(name: str, tensors: Tensors, source: str | Path = "exported model") -> Csr:
    """The sparse rows that ``pack_csr`` packed, with int64 offsets from 0.

    Raises:
        CheckpointError: an array is missing, of a wrong type or shape, counts do not add up, ids
            are out of range, or values are not finite.
    """
    width = _array(f"{name}.num_columns", tensors, "int64", (1,), source)
    num_columns = int(width[0])
    if not 0 <= num_columns <= _MOST:
        raise _damaged(source, f"{name}.num_columns", f"is {num_columns:,}, not 0..{_MOST:,}")
    counts = _array(f"{name}.counts", tensors, "uint8 uint16 uint32", (None,), source)
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    nnz = int(offsets[-1])
    steps = _array(f"{name}.steps", tensors, "uint16 uint32", (nnz,), source)
    high_bits = None
    if f"{name}.steps_high" in tensors:
        high_bits = _array(f"{name}.steps_high", tensors, "uint8", (nnz,), source)
        steps = _array(f"{name}.steps", tensors, "uint16", (nnz,), source)
    values = None
    if f"{name}.values" in tensors:
        values = _unpack_values(name, tensors, counts, nnz, source)
    ids = np.empty(nnz, np.int32)
    # Blocks of whole rows, cut near every _BLOCK entries.
    cuts = np.searchsorted(offsets, np.arange(0, nnz, _BLOCK), "right") - 1
    edges = np.unique(np.append(cuts, len(counts)))
    for first, last in pairwise(edges):
        low, high = offsets[first], offsets[last]
        reached = np.zeros(high - low + 1, np.int64)
        part = steps[low:high].astype(np.int64)
        if high_bits is not None:
            part += high_bits[low:high].astype(np.int64) << 16
        np.cumsum(part, out=reached[1:])
        before = reached[offsets[first:last] - low]
        found = reached[1:] - np.repeat(before, counts[first:last])
        # Steps are not negative, so ids ascend and only their upper bound can be broken.
        if found.max(initial=-1) >= num_columns:
            raise _damaged(source, f"{name}.steps", f"gives ids beyond {num_columns - 1:,}")
        ids[low:high] = found
    return Csr(offsets, ids, values, num_columns)


def _unpack_values(
    name: str, tensors: Tensors, counts: np.ndarray, nnz: int, source: str | Path
) -> np.ndarray:
    """float32 [nnz]: the values of sparse rows."""
    packed = _array(f"{name}.values", tensors, "uint8 int8 float16", (nnz,), source)
    values = packed.astype(np.float32)
    if packed.dtype != np.float16:
        levels = 127 if packed.dtype == np.int8 else 255
        if values.min(initial=0) < -127:
            raise _damaged(source, f"{name}.values", "holds −128, which is never written")
        values *= np.repeat(_stored_scale(name, tensors, len(counts), levels, source), counts)
    elif not np.isfinite(values).all():
        raise _damaged(source, f"{name}.values", "holds numbers that are not finite")
    return values


def _smallest(largest: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that holds ``largest``."""
    return np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32


def _row_ranges(n: int, dim: int, rows: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges of ``rows`` rows over ``n``, or of about ``_BLOCK`` numbers."""
    step = rows or max(1, _BLOCK // max(1, dim))
    return ((low, min(low + step, n)) for low in range(0, n, step))


def _packed_rows(
    name: str, tensors: Tensors, source: str | Path
) -> tuple[np.ndarray, np.ndarray | None]:
    """(int8 [n, D], float32 [n]) or (float16 [n, D], None)."""
    if f"{name}.int8" not in tensors:
        packed = _array(f"{name}.fp16", tensors, "float16", (None, None), source)
        scale = None
    else:
        packed = _array(f"{name}.int8", tensors, "int8", (None, None), source)
        scale = _stored_scale(name, tensors, len(packed), 127, source)
    if len(packed) > _MOST:  # possible without a byte in the file where D is 0
        raise _damaged(source, name, f"has {len(packed):,} rows, more than {_MOST:,}")
    return packed, scale


def _stored_scale(
    name: str, tensors: Tensors, n: int, levels: int, source: str | Path
) -> np.ndarray:
    """float32 [n]: the scales beside 8-bit numbers, none of which they take out of float32."""
    scale = _array(f"{name}.scale", tensors, "float16 float32", (n,), source)
    # Written so that NaN fails too.
    if not ((scale >= 0) & (scale.astype(np.float64) * levels <= np.finfo(np.float32).max)).all():
        raise _damaged(source, f"{name}.scale", "holds scales that are negative or not finite")
    return scale.astype(np.float32)


def _array(
    name: str, tensors: Tensors, dtypes: str, shape: tuple[int | None, ...], source: str | Path
) -> np.ndarray:
    """``tensors[name]``, if of one of ``dtypes`` and of ``shape`` (None: any length)."""
    if name not in tensors:
        raise _damaged(source, name, "is missing")
    array = tensors[name]
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if array.dtype.name not in dtypes.split() or not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise _damaged(
            source,
            name,
            f"is {array.dtype} {list(array.shape)}, not {dtypes.replace(' ', '/')} [{wanted}]",
        )
    return array


def _damaged(source: str | Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{source}: damaged, {name} {what}; export the model again")
