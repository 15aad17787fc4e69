"""Data sets at a URL: fetched into this machine's cache, or written here and sent there.

A data set is used through memory-mapped files, so a URL (whatever ``storage`` knows) means a copy
under the data set's checksum in a cache folder, as ``data_copy`` keeps it: checked when it comes,
and found again by the next process. ``meta.json`` is sent last, so a reader of a half-sent data set
finds none.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ray_xml.data_copy import copy_of, open_copy, receive
from ray_xml.errors import DataSetError
from ray_xml.json_text import parse_json
from ray_xml.storage import Storage, is_url
from ray_xml.store import DataSet
from ray_xml.store_meta import META, DataSetMeta, checked_meta, damaged, is_meta

CACHE = "RAY_XML_CACHE"


def cache_folder() -> Path:
    """Where what comes from URLs is kept on this machine: $RAY_XML_CACHE, or ~/.cache/ray_xml."""
    return Path(os.environ.get(CACHE) or "~/.cache/ray_xml").expanduser()


def open_data(source: str | Path, cache: Path | None = None) -> DataSet:
    """A data-set folder, or the copy of one at a URL, which is fetched unless it is there.

    Args:
        cache: folder of the copies; None is data/ in ``cache_folder``.

    Raises:
        DataSetError: there is none, or it is damaged.
        StorageError: the URL cannot be reached or read.
    """
    if not is_url(str(source)):
        return DataSet.open(source)
    storage, cache = Storage(str(source)), cache or cache_folder() / "data"
    meta = _meta(storage)

    def read(name: str, size: int) -> Iterator[np.ndarray]:
        del size  # what came is held against the checksum
        for piece in storage.pieces(name):
            yield np.frombuffer(piece, np.uint8)

    receive(cache, meta, read)
    found = open_copy(cache, meta.checksum)
    if found is None:
        return DataSet.open(copy_of(cache, meta.checksum))  # says what is wrong with it
    return found


def _meta(storage: Storage) -> DataSetMeta:
    if META not in storage.sizes():
        raise DataSetError(
            f"{storage.uri}: no data set there (no {META}); make one with "
            "`ray-xml prepare … URL`, or check the URL"
        )
    where = f"{storage.uri.rstrip('/')}/{META}"
    try:
        tree = parse_json(storage.read(META))
    except ValueError as error:
        raise damaged(where, str(error)) from error
    if not is_meta(tree):
        raise damaged(where, "it describes no data set")
    return checked_meta(tree, where)


@contextmanager
def data_out(out: str, *, overwrite: bool) -> Iterator[str]:
    """The folder to make a data set in: ``out`` itself, or, where that is a URL, one on this
    machine, which is sent when the block is done.

    Raises:
        DataSetError: the URL holds a data set already, and ``overwrite`` was not asked for.
        StorageError: it cannot be written.
    """
    if not is_url(out):
        yield out
        return
    storage = Storage(out)
    if META in storage.sizes() and not overwrite:
        raise DataSetError(
            f"{out} already holds a data set: choose another place, or pass --overwrite to "
            "replace it"
        )
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="prepare-") as scratch:
        # The data set's default name is that of its folder.
        folder = Path(scratch) / out.rstrip("/").rpartition("/")[2]
        yield str(folder)
        if META in storage.sizes():
            storage.delete(META)  # from here on there is none until all of it is there
        for file in sorted(folder.iterdir(), key=lambda file: file.name == META):
            storage.put(file, file.name)
