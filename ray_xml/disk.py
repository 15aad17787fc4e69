"""Writing files that matter: whole or not at all, on the disk before one goes on, and a disk that
takes no more is told in the user's words."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path

from safetensors import SafetensorError

from ray_xml.errors import DiskError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EIO}
_PIECE = 1 << 20  # bytes hashed at a time


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full, read-only or failing disk, met while ``path`` is written, into a DiskError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if number in _FULL:
            raise DiskError(
                f"{path}: no space left to write it{_room(path)}; make room there and run the "
                "same command again"
            ) from error
        if number in _REFUSED:
            raise DiskError(
                f"{path} cannot be written ({os.strerror(number)}); mend that and run the same "
                "command again"
            ) from error
        raise


def _number(error: Exception) -> int:
    """The system's number of an error, or 0; safetensors has it in its text alone."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0


def _room(path: Path) -> str:
    for place in path.parents:
        with suppress(OSError):
            usage = shutil.disk_usage(place)
            return f" ({usage.free / 1e6:,.1f} MB of {usage.total / 1e6:,.1f} MB free)"
    return ""


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a rename cannot overtake it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never half of it.

    Raises:
        DiskError: the disk is full or takes nothing; the old file is as it was.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            with open(draft, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def add_line(path: Path, text: str) -> None:
    """Adds a line to a text file, on a line of its own even where the last one was cut.

    Raises:
        DiskError: the disk is full or takes nothing; the file is as long as it was.
    """
    with writing(path), open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        broken = file.read(1) not in (b"", b"\n")
        try:
            write_all(file, memoryview((b"\n" if broken else b"") + text.encode() + b"\n"))
        except OSError:
            file.truncate(size)
            raise


def write_all(file: RawIOBase, data: memoryview) -> None:
    """Writes to an unbuffered file: a disk takes a part before it is full."""
    while data:
        data = data[file.write(data) :]


def sha256_of(path: Path) -> str:
    """The checksum of a file's bytes, in hexadecimal."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()
