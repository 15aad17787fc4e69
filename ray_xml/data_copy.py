"""A machine's own copy of a data-set folder: received in pieces, checked, and only then in place.

Copies lie in a cache folder under their data set's checksum, so a later run on the same data finds
them, and two data sets never meet. Nothing here deletes a whole copy: that is the user's to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ray_xml.errors import DataSetError
from ray_xml.store import DataSet
from ray_xml.store_meta import META, DataSetMeta, FileMeta
from ray_xml.store_partial import PartialFolder, writing

# The content of a file of so many bytes, in order, as arrays of uint8.
Read = Callable[[str, int], Iterable[np.ndarray]]


def copy_of(cache: Path, checksum: str) -> Path:
    """Where in ``cache`` the copy of the data set with this checksum lies, or would."""
    return cache / f"data-{checksum[:24]}"


def open_copy(cache: Path, checksum: str) -> DataSet | None:
    """The copy, or None where there is none that is whole."""
    try:
        found = DataSet.open(copy_of(cache, checksum))
    except DataSetError:
        return None
    return found if found.meta.checksum == checksum else None


def receive(cache: Path, meta: DataSetMeta, read: Read) -> bool:
    """Makes the copy of a data set, unless it is there.

    Processes of a machine take turns: whoever comes second waits and finds the copy made.

    Args:
        meta: of the data set, whose checksums the received files must have.
        read: asked for each file's content.

    Returns:
        whether anything was received.

    Raises:
        DataSetError: the cache cannot be written, or a file is not what ``meta`` says. Nothing of
            the copy stays.
    """
    target = copy_of(cache, meta.checksum)
    with only_one(cache, target.name):
        if open_copy(cache, meta.checksum) is not None:
            return False
        partial = PartialFolder(target)
        try:
            with writing(partial.path):
                partial.make()
                files: dict[str, FileMeta] = {f"{k}.arrow": v for k, v in meta.splits.items()}
                for name, expected in (files | meta.files).items():
                    _write(partial.path / name, expected, read(name, expected.bytes))
                text = meta.model_dump_json(indent=1)
                (partial.path / META).write_text(text, encoding="utf-8")
                partial.flush()
                partial.put_in_place(replaces=target.exists())
        finally:
            partial.remove()
    return True


@contextmanager
def only_one(cache: Path, name: str) -> Iterator[None]:
    """Makes the cache folder, and holds the lock of what goes by ``name`` in it; the kernel lets go
    of it when its process ends.

    Raises:
        DataSetError: the cache cannot be written.
    """
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        lock = os.open(cache / f".{name}.lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        with writing(cache):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(path: Path, expected: FileMeta, pieces: Iterable[np.ndarray]) -> None:
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece.data)
            digest.update(piece.data)
            size += piece.nbytes
    if (size, digest.hexdigest()) != (expected.bytes, expected.sha256):
        raise DataSetError(
            f"{path.name} arrived with {size} bytes and another checksum than meta.json has: the "
            "data set changed or is damaged where the run was started; prepare it again"
        )
