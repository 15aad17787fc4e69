"""Named arrays in one file that many processes map into memory and share.

The file is an ordinary safetensors file: the header's length (8 bytes, little-endian), a JSON
header, then the arrays. It is written piece by piece, so an array need never be in memory as a
whole, and read without being copied: processes of one node share its pages.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ray_xml.json_text import parse_json, shown

# safetensors' name of every type that a file may hold.
_NAMES = {"<i8": "I64", "<i4": "I32", "<f4": "F32", "<f2": "F16"}
_TYPES = {name: np.dtype(code) for code, name in _NAMES.items()}
_EMPTY = {dtype: np.zeros(0, dtype) for dtype in _TYPES.values()}
_MOST_HEADER = 1 << 20  # bytes; a header is some hundreds
_PIECE = 1 << 22  # bytes copied at a time


class ArraysWriter:
    """Writes arrays piece by piece; a reader sees the old file or the whole new one.

    Used as a context manager: the file is in place once the block has ended without an error.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self.path, self._metadata = path, dict(metadata)
        self._parts: dict[str, tuple[np.dtype[Any], IO[bytes]]] = {}

    def append(self, name: str, piece: np.ndarray) -> None:
        """Adds ``piece``, a vector of int64, int32, float32 or float16, to the end of the array
        ``name``."""
        assert piece.ndim == 1
        assert piece.dtype.str in _NAMES, piece.dtype
        if name not in self._parts:
            # Beside the file, so that what has no room fails before the old file is gone.
            part: IO[bytes] = tempfile.TemporaryFile(dir=self.path.parent)  # noqa: SIM115
            self._parts[name] = piece.dtype, part
        dtype, whole = self._parts[name]
        assert piece.dtype == dtype, f"{name} is {dtype}, not {piece.dtype}"
        whole.write(np.ascontiguousarray(piece).data)

    def __enter__(self) -> ArraysWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            if kind is None:
                self._join(draft)
                os.replace(draft, self.path)
        finally:
            draft.unlink(missing_ok=True)
            for _, part in self._parts.values():
                with suppress(OSError):  # what a full disk did not take is told already
                    part.close()

    def _join(self, draft: Path) -> None:
        # The widest types first, so that every array is aligned to its type.
        names = sorted(self._parts, key=lambda name: (-self._parts[name][0].itemsize, name))
        header: dict[str, Any] = {"__metadata__": self._metadata}
        end = 0
        for name in names:
            dtype, part = self._parts[name]
            begin, end = end, end + part.tell()
            header[name] = {
                "dtype": _NAMES[dtype.str],
                "shape": [(end - begin) // dtype.itemsize],
                "data_offsets": [begin, end],
            }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(draft, "wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for name in names:
                part = self._parts[name][1]
                part.seek(0)
                shutil.copyfileobj(part, file, _PIECE)


def read_metadata(path: Path) -> dict[str, str]:
    """What ``ArraysWriter`` was given as ``metadata``; errors are those of ``map_arrays``."""
    with open(path, "rb") as file:
        header, _ = _read_header(file)
    found = header.get("__metadata__", {})
    if not isinstance(found, dict):
        raise ValueError("its metadata is no table")
    return {str(key): str(value) for key, value in found.items()}


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read-only views of all arrays of a file, each one vector; nothing is read yet.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is cut short or damaged. What the numbers say is the caller's to check.
    """
    with open(path, "rb") as file:
        header, first = _read_header(file)
        size = os.fstat(file.fileno()).st_size
        # Pages stay mapped after the file is closed or replaced, for as long as there are views.
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    arrays: dict[str, np.ndarray] = {}
    claimed = first
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, (length,) = _TYPES[entry["dtype"]], entry["shape"]
            begin, end = entry["data_offsets"]
            fits = (
                all(type(number) is int for number in (length, begin, end))
                and 0 <= begin <= end <= size - first
                and end - begin == length * dtype.itemsize
                and (first + begin) % dtype.itemsize == 0
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name} is described as {shown(entry)}") from error
        if not fits:
            raise ValueError(f"{name} does not lie where the header says")
        # Views of the map itself: scipy copies what is a small part of a larger array.
        arrays[name] = (
            np.frombuffer(whole, dtype, length, first + begin) if length else _EMPTY[dtype]
        )
        claimed += end - begin
    if claimed != size:
        raise ValueError(f"{size:,} bytes, the header says {claimed:,}")
    return arrays


def _read_header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """(the header, where the arrays begin)."""
    length = int.from_bytes(file.read(8), "little")
    text = file.read(min(length, _MOST_HEADER))
    if not length or len(text) != length:
        raise ValueError("its header is cut short or no header")
    header = parse_json(text)
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header, 8 + length
