"""Documents of a part, read in blocks and checked.

Parquet and Arrow files have the columns ``features`` (list of integers, the numbers of features)
and ``values`` (list of floats, as long), and may have ``id``, which goes into the predictions as it
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ray_xml.data_url import open_data
from ray_xml.embedding import EmbeddingFile
from ray_xml.errors import InputError
from ray_xml.predict_inputs import Part, opened, told
from ray_xml.row_files import read_rows
from ray_xml.row_values import documents_in, rows_of
from ray_xml.sparse import Csr, stacked
from ray_xml.text import Vectorizer
from ray_xml.xc_io import open_xc

FEATURES, VALUES, ID = "features", "values", "id"
_READ = 4096  # rows of a Parquet file decoded at a time


@dataclass(frozen=True)
class Documents:
    """A block of documents.

    Attributes:
        features: [n, V].
        ids: [n], or None where the file has none.
    """

    features: Csr
    ids: pa.Array | None


def blocks(
    part: Part, num_features: int, size: int, vectorizer: Vectorizer | None = None
) -> Iterator[Documents]:
    """The part's documents, ``size`` at a time, but for the last block.

    Args:
        num_features: V of Parquet and Arrow files, which do not say it themselves.
        vectorizer: of texts.

    Raises:
        InputError: a document is faulty, or there are fewer than there were.
    """
    with told(part.file.place):
        done = 0
        read = _read(part, num_features, vectorizer)
        for block in _sized(read, part.rows, size):
            done += block.features.num_rows
            yield block
        if done < part.rows:
            raise InputError(
                part.file.place,
                f"it had {part.file.rows:,} documents and now ends after {part.first + done:,}: "
                "it was changed; predict again into a new folder",
            )


def _read(part: Part, num_features: int, vectorizer: Vectorizer | None) -> Iterator[Documents]:
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
    elif file.kind == "texts":
        assert vectorizer is not None
        yield from _texts(part, vectorizer)
    else:
        system, path = opened(file.place)
        yield from _columnar(system, path, part, num_features)


def _texts(part: Part, vectorizer: Vectorizer) -> Iterator[Documents]:
    texts = part.file.texts
    assert texts is not None
    # Rows of the vectors go through all files, as documents do.
    begun = part.start - part.first
    vectors = None if texts.embeddings is None else EmbeddingFile(texts.embeddings)
    passed = 0
    for block in read_rows([part.file.place], texts.columns):
        count = documents_in(block)
        skip = max(part.first - passed, 0)
        if skip < count:
            rows = rows_of(block, texts.columns, allow_empty=True)
            own = np.stack(rows.vectors[skip:]) if rows.vectors else None
            if vectors is not None:
                own = vectors.take(begun + np.arange(passed + skip, passed + count))
            for low in range(0, count - skip, _READ):
                some = slice(low, low + _READ)
                theirs = None if own is None else own[some]
                given = rows.texts[skip:][some]
                yield Documents(vectorizer.transform(given, theirs), None)
        passed += count


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
    with system.open_input_file(path) as source:
        if part.file.kind == "arrow":
            with pa.ipc.open_file(source) as reader:
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    yield row, batch
                    row += batch.num_rows
            return
        file = pq.ParquetFile(source)
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
