"""The file of an exported model: safetensors, with the arrays deflated for which that pays.

An array is deflated (zlib, standard library) if that saves more than a tenth of it: ids, counts
and values of sparse rows and float16 do, int8 rows of a trained layer, which are close to noise,
do not. A deflated array is stored as uint8 bytes; its type and shape are in the file's metadata.
Bytes of like significance go together before deflating, since the high ones alone repeat.

Nothing in the file is executed, and nothing is unfolded beyond what it may claim.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ray_xml.errors import CheckpointError
from ray_xml.json_text import parse_json

FORMAT_VERSION = 1

# safetensors' name of every type that a file may hold.
_TYPES = {
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "U32": "uint32",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "F32": "float32",
}
_SAMPLE = 1 << 20  # bytes that tell whether deflating the whole array is worth the time
_PIECE = 1 << 18  # deflated bytes read at a time
# Deflate reaches 1 : 1032, real arrays about 1 : 3. A file may claim to unfold to the larger.
_FREE, _RATIO = 1 << 30, 64


def save(path: Path, tensors: Mapping[str, np.ndarray], *, compress: bool = True) -> None:
    """Writes ``tensors`` so that a reader sees the old file or the whole new one.

    Args:
        tensors: arrays of the types above.
        compress: deflate vectors and matrices that become more than a tenth smaller.
    """
    for name, array in tensors.items():
        assert array.dtype.name in _TYPES.values(), f"{name} is {array.dtype}"
    stored = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    deflated: dict[str, dict[str, Any]] = {}
    for name, array in list(stored.items()) if compress else []:
        smaller = _deflate(array)
        if smaller is not None:
            stored[name] = smaller
            deflated[name] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    unfolded = sum(tensors[name].nbytes for name in deflated)
    if unfolded > _allowance(sum(array.nbytes for array in stored.values())):
        # Gigabytes of almost nothing look like a decompression bomb: load would refuse them.
        save(path, tensors, compress=False)
        return
    metadata = {"format_version": str(FORMAT_VERSION), "deflated": json.dumps(deflated)}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # safetensors makes files for the owner alone; a model is for whom the umask lets read.
        draft.touch()
        mode = draft.stat().st_mode
        save_file(stored, draft, metadata=metadata)
        draft.chmod(mode & 0o777)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def load(path: Path, *, leave_out: Collection[str] = ()) -> dict[str, np.ndarray]:
    """The arrays that ``save`` wrote, in memory.

    Args:
        leave_out: arrays whose name is one of these up to its first dot are not read.

    What they must be to each other is checked by ``compact.unpack_rows`` and ``unpack_csr``.

    Raises:
        CheckpointError: the file is missing, cut short, damaged, of another format, or claims
            more than it can hold; names the file and the array.
    """
    tensors: dict[str, np.ndarray] = {}
    name = "header"
    try:
        size = path.stat().st_size
        with safe_open(path, framework="numpy") as file:
            claims = _claims(path, file.metadata() or {}, size)
            names = list(file.keys())
            for name in claims:
                if name not in names:
                    raise _damaged(path, name, "is missing")
            for name in names:
                if name.partition(".")[0] in leave_out:
                    continue
                dtype = file.get_slice(name).get_dtype()
                if dtype not in _TYPES:
                    raise _damaged(path, name, f"has the type {dtype}")
                array = file.get_tensor(name)
                tensors[name] = (
                    _inflate(path, name, array, *claims[name]) if (name in claims) else array
                )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; export the model again") from None
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError) as error:
        raise _damaged(path, name, f"cannot be read ({error})") from error
    return tensors


def _claims(
    path: Path, metadata: Mapping[str, str], size: int
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """(type, shape) of every deflated array, from the metadata of a file of ``size`` bytes."""
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path}: format version {version}, this ray_xml reads {FORMAT_VERSION}; "
            "use the version of ray_xml that wrote it"
        )
    claims: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    total = 0
    try:
        tree = parse_json(metadata["deflated"])
        for name, claim in tree.items():
            dtype, shape = claim["dtype"], claim["shape"]
            lengths = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
            if dtype not in _TYPES.values() or not lengths or len(shape) > 2:
                raise _damaged(path, name, f"claims to be {str(claim)[:80]}")
            claims[name] = np.dtype(dtype), tuple(shape)
            total += math.prod(shape) * np.dtype(dtype).itemsize
            if total > _allowance(size):
                raise _damaged(path, name, f"claims {str(shape)[:80]}, too much for {size:,} bytes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, "header", f"cannot be read ({error!r:.80})") from error
    return claims


def _allowance(size: int) -> int:
    """The most bytes that the deflated arrays of a file of ``size`` bytes may unfold to."""
    return max(_FREE, _RATIO * size)


def _deflate(array: np.ndarray) -> np.ndarray | None:
    """uint8 [m]: a vector or matrix deflated, or None if that saves no more than a tenth."""
    if array.ndim > 2:
        return None
    flat = array.reshape(-1)
    sample = flat[len(flat) // 2 :][: _SAMPLE // array.itemsize]
    for part in (sample, flat):
        smaller = zlib.compress(_by_significance(part).data)
        if len(smaller) >= 0.9 * part.nbytes:
            return None
    return np.frombuffer(smaller, np.uint8)


def _by_significance(flat: np.ndarray) -> np.ndarray:
    """uint8 [itemsize · n]: the lowest byte of every number, then the next of every number, …"""
    little = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, flat.itemsize).T).reshape(-1)


def _inflate(
    path: Path, name: str, stored: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray:
    """The array that ``_deflate`` made ``stored`` of; never makes more bytes than claimed."""
    if stored.dtype != np.uint8 or stored.ndim != 1:
        raise _damaged(path, name, f"is {stored.dtype} {list(stored.shape)}, not deflated bytes")
    raw = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    inflater, filled = zlib.decompressobj(), 0
    try:
        for low in range(0, len(stored), _PIECE):
            # One byte more than fits shows that there is too much.
            piece = inflater.decompress(stored[low : low + _PIECE].data, len(raw) - filled + 1)
            if filled + len(piece) > len(raw):
                raise _damaged(path, name, f"unfolds to more than its shape {list(shape)}")
            raw[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
    except zlib.error as error:
        raise _damaged(path, name, f"cannot be unfolded ({error})") from error
    if filled != len(raw) or not inflater.eof or inflater.unused_data:
        raise _damaged(path, name, f"unfolds to {filled:,} bytes, not {len(raw):,} and an end")
    if dtype.itemsize > 1:
        raw = np.ascontiguousarray(raw.reshape(dtype.itemsize, -1).T).reshape(-1)
    return raw.view(dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def _damaged(path: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: damaged, {name} {what}; export the model again")
