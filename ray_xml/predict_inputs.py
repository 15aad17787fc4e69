"""Documents to predict, from wherever they come, cut into parts that can be read on their own.

    FOLDER           a prepared data set (a split of it), or Parquet and Arrow files
    FILE             .parquet, .arrow, .feather, or an XC file with or without labels
    URL              the same but XC files

Parquet and Arrow files have the columns ``features`` (list of integers, the numbers of features)
and ``values`` (list of floats, as long), and may have ``id``, which goes into the predictions as it
is. A part is a run of documents of one file. It is read in blocks, so that neither a file nor a
part is ever whole in memory. An XC file is text: what lies before a part has to be passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ray_xml.data_url import open_data
from ray_xml.errors import InputError, StorageError
from ray_xml.sparse import Csr, stacked
from ray_xml.storage import file_system, is_url
from ray_xml.store_meta import META
from ray_xml.xc_io import open_xc

FEATURES, VALUES, ID = "features", "values", "id"
Kind = Literal["data set", "xc", "parquet", "arrow"]
_KINDS: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
_READ = 4096  # rows of a Parquet file decoded at a time


@dataclass(frozen=True)
class InputFile:
    """A file of documents.

    Attributes:
        place: its path or URL; of a data set, the folder's.
        kind: how it is read.
        name: what it is called in a manifest, whatever folder it lies in.
        size: its bytes.
        rows: its documents.
        split: of a data set.
        checksum: of a data set.
    """

    place: str
    kind: Kind
    name: str
    size: int
    rows: int
    split: str = ""
    checksum: str = ""

    def told(self) -> dict[str, Any]:
        """What tells it from another, for JSON."""
        told = {"name": self.name, "bytes": self.size, "rows": self.rows}
        return {**told, "checksum": self.checksum} if self.checksum else told


@dataclass(frozen=True)
class Part:
    """Consecutive documents of a file.

    Attributes:
        number: among all parts, from 0.
        file: where they are.
        first, rows: which of the file's.
        start: number of the first document among those of all files.
    """

    number: int
    file: InputFile
    first: int
    rows: int
    start: int


@dataclass(frozen=True)
class Documents:
    """A block of documents.

    Attributes:
        features: [n, V].
        ids: [n], or None where the file has none.
    """

    features: Csr
    ids: pa.Array | None


def find_inputs(source: str, split: str) -> list[InputFile]:
    """The files of ``source``, in the order of their names.

    Raises:
        InputError: there is nothing to read, or it is damaged.
        DataSetError: a data set that is damaged, or has no such split.
    """
    with _told(source):
        system, root = _opened(source)
        info = system.get_file_info(root)
        if info.type == fs.FileType.NotFound:
            raise InputError(source, "there is no such file or folder: check the path")
        if info.type == fs.FileType.File:
            return [_file(system, source, info)]
        inside = system.get_file_info(fs.FileSelector(root))
        if any(one.base_name == META for one in inside):
            return [_split(source, split)]
        found = sorted(
            (one for one in inside if one.is_file and _suffix(one.base_name) in _KINDS),
            key=lambda one: one.base_name,
        )
        if not found:
            raise InputError(
                source, "the folder holds neither a data set nor .parquet or .arrow files"
            )
        base = source.rstrip("/")
        return [_file(system, f"{base}/{one.base_name}", one) for one in found]


def cut(files: list[InputFile], size: int) -> list[Part]:
    """Parts of at most ``size`` documents."""
    parts: list[Part] = []
    start = 0
    for file in files:
        for first in range(0, file.rows, size):
            rows = min(size, file.rows - first)
            parts.append(Part(len(parts), file, first, rows, start + first))
        start += file.rows
    return parts


def blocks(part: Part, num_features: int, size: int) -> Iterator[Documents]:
    """The part's documents, ``size`` at a time, but for the last block.

    Args:
        num_features: V of Parquet and Arrow files, which do not say it themselves.

    Raises:
        InputError: a document is faulty, or there are fewer than there were.
    """
    with _told(part.file.place):
        done = 0
        for block in _sized(_read(part, num_features), part.rows, size):
            done += block.features.num_rows
            yield block
        if done < part.rows:
            raise InputError(
                part.file.place,
                f"it had {part.file.rows:,} documents and now ends after {part.first + done:,}: "
                "it was changed; predict again into a new folder",
            )


def _read(part: Part, num_features: int) -> Iterator[Documents]:
    """From the part's first document on, in blocks of any size."""
    file = part.file
    if file.kind == "data set":
        data = open_data(file.place)
        if data.meta.checksum != file.checksum:
            what = "this machine has another data set there than where the command was given"
            raise InputError(file.place, f"{what}; let every machine see the same, or give a URL")
        features = data.split(file.split).features.slice(part.first, part.first + part.rows)
        yield from (Documents(block, None) for _, block in features.blocks(_READ))
    elif file.kind == "xc":
        yield from (Documents(block, None) for block, _ in open_xc(file.place).blocks(part.first))
    else:
        system, path = _opened(file.place)
        yield from _columnar(system, path, part, num_features)


def _sized(given: Iterator[Documents], total: int, size: int) -> Iterator[Documents]:
    """``total`` documents at most, ``size`` to a block."""
    held: list[Documents] = []
    count, left = 0, total
    for one in given:
        rows, at = one.features.num_rows, 0
        while at < rows and left:
            take = min(size - count, rows - at, left)
            ids = None if one.ids is None else one.ids.slice(at, take)
            held.append(Documents(one.features.slice(at, at + take), ids))
            at, count, left = at + take, count + take, left - take
            if count == size:
                yield _joined(held)
                held, count = [], 0
        if not left:
            break
    if held:
        yield _joined(held)


def _joined(parts: list[Documents]) -> Documents:
    if len(parts) == 1:
        return parts[0]
    ids = [part.ids for part in parts if part.ids is not None]
    features = stacked([part.features for part in parts], parts[0].features.num_columns)
    return Documents(features, pa.concat_arrays(ids) if ids else None)


# ---- Parquet and Arrow --------------------------------------------------------------------------


def _columnar(
    system: fs.FileSystem, path: str, part: Part, num_features: int
) -> Iterator[Documents]:
    for row, batch in _batches(system, path, part):
        for low in range(max(part.first - row, 0), batch.num_rows, _READ):
            yield _documents(batch.slice(low, _READ), part.file.place, row + low, num_features)


def _batches(system: fs.FileSystem, path: str, part: Part) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(row, batch): the file's batches in order with their first rows; those that end before the
    part may be left out."""
    row = 0
    with system.open_input_file(path) as opened:
        if part.file.kind == "arrow":
            with pa.ipc.open_file(opened) as reader:
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    yield row, batch
                    row += batch.num_rows
            return
        file = pq.ParquetFile(opened)
        names = [name for name in (FEATURES, VALUES, ID) if name in file.schema_arrow.names]
        groups = list(range(file.num_row_groups))
        while groups and row + file.metadata.row_group(groups[0]).num_rows <= part.first:
            row += file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(_READ, row_groups=groups, columns=names):
            yield row, batch
            row += batch.num_rows


def _documents(batch: pa.RecordBatch, place: str, row: int, num_features: int) -> Documents:
    """Rows of a file, of which ``row`` is the first, checked."""

    def wrong(what: str, at: int | None = None) -> InputError:
        return InputError(place, what if at is None else f"document {row + at:,}: {what}")

    arrays = {}
    for name, kind in ((FEATURES, pa.int32()), (VALUES, pa.float32())):
        if name not in batch.schema.names:
            raise wrong(f"there is no column {name!r}, only {', '.join(batch.schema.names)}")
        column = batch.column(name)
        try:
            arrays[name] = column.cast(pa.large_list(kind))
        except pa.ArrowException as error:
            said = str(error).splitlines()[0]
            raise wrong(
                f"column {name!r} is {column.type}, not a list of {kind} ({said})"
            ) from None
        if column.null_count or arrays[name].flatten().null_count:
            raise wrong(f"column {name!r} has nulls in documents {row:,} and following")
    offsets = arrays[FEATURES].offsets.to_numpy()
    offsets = offsets - offsets[0]
    others = arrays[VALUES].offsets.to_numpy()
    uneven = np.flatnonzero(np.diff(offsets) != np.diff(others))
    if len(uneven):
        raise wrong(f"{FEATURES} and {VALUES} are not equally long", int(uneven[0]))
    ids, values = (arrays[name].flatten().to_numpy() for name in (FEATURES, VALUES))
    rows = np.repeat(np.arange(batch.num_rows), np.diff(offsets))
    outside = np.flatnonzero((ids < 0) | (ids >= num_features))
    if len(outside):
        at = int(outside[0])
        what = f"feature {ids[at]} is not in 0..{num_features - 1}, the model's features"
        raise wrong(what, int(rows[at]))
    infinite = np.flatnonzero(~np.isfinite(values))
    if len(infinite):
        raise wrong("a value is not finite", int(rows[infinite[0]]))
    keys = rows * num_features + ids
    if (np.diff(keys) <= 0).any():  # features in any order are accepted
        order = np.argsort(keys, kind="stable")
        keys, ids, values = keys[order], ids[order], values[order]
        twice = np.flatnonzero(np.diff(keys) == 0)
        if len(twice):
            at = int(twice[0])
            raise wrong(f"feature {ids[at]} is there twice", int(rows[at]))
    found = batch.column(ID) if ID in batch.schema.names else None
    return Documents(Csr(offsets, ids, values, num_features), found)


# ---- files --------------------------------------------------------------------------------------


def _opened(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URL, and the path on it."""
    if is_url(place):
        return file_system(place)
    return fs.LocalFileSystem(), str(Path(place).absolute())


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _split(source: str, split: str) -> InputFile:
    data = open_data(source)
    data.split(split)  # says so if there is none
    meta = data.meta.splits[split]
    return InputFile(
        source, "data set", split, meta.bytes, meta.documents, split, data.meta.checksum
    )


def _file(system: fs.FileSystem, place: str, info: fs.FileInfo) -> InputFile:
    kind = _KINDS.get(_suffix(info.base_name), "xc")
    if kind == "xc":
        if is_url(place):
            what = "of the files at a URL only .parquet, .arrow and .feather ones can be read"
            raise InputError(place, f"{what}; fetch it first")
        rows = open_xc(place).num_documents
    else:
        try:
            with system.open_input_file(info.path) as opened:
                if kind == "parquet":
                    rows = pq.ParquetFile(opened).metadata.num_rows
                else:
                    with pa.ipc.open_file(opened) as reader:
                        batches = range(reader.num_record_batches)
                        rows = sum(reader.get_batch(number).num_rows for number in batches)
        except pa.ArrowException as error:
            raise InputError(
                place, f"this is no {kind} file, or a damaged one ({error})"
            ) from error
    return InputFile(place, kind, info.base_name, info.size, rows)


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Turns what file systems say into our own errors."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        kind = StorageError if is_url(place) else None
        said = f"cannot be read ({type(error).__name__}: {error})"
        raise (kind(f"{place} {said}") if kind else InputError(place, said)) from error
