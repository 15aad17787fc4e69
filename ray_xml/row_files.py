"""Files of texts, read a block of rows at a time: CSV, JSON lines, Parquet, and plain text.

    .csv .tsv                 a header line with the names of the columns
    .jsonl .ndjson .json      JSON lines: an object a line
    .parquet                  or a folder of such files, in the order of their names
    .txt                      a text a line, the column ``text``

All but Parquet may end in ``.gz`` or ``.xz`` besides. A block is raw, so that reading, which one
process does, is little work: ``row_values`` takes it apart, in whatever process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from ray_xml.errors import ConfigError, InputError
from ray_xml.xc_io import open_bytes

LINE = "text"  # the column of a plain text file
_BLOCK = 1 << 20  # bytes of lines in a block, about
_ROWS = 1024  # of a Parquet file in a block
_MOST = 16 << 20  # bytes of a line, or of a CSV row


@dataclass(frozen=True)
class Columns:
    """Which columns are what.

    Attributes:
        text: those of the text, joined in this order; one at least.
        labels: that of the labels, or None where there are none to read.
        separator: between the labels of a text; None where they are lists.
        below: labels are whole numbers from 0 up, less than this; None where they are names.
        id: that of the documents' names, or None.
        embedding: that of the documents' vectors, or None.
        delimiter: between the columns of a CSV file; None takes a comma, of .tsv a tab.
    """

    text: tuple[str, ...]
    labels: str | None = None
    separator: str | None = None
    below: int | None = None
    id: str | None = None
    delimiter: str | None = None
    embedding: str | None = None

    @property
    def wanted(self) -> list[str]:
        """Every column to read, once."""
        also = [name for name in (self.labels, self.id, self.embedding) if name is not None]
        return list(dict.fromkeys([*self.text, *also]))


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file.

    Attributes:
        path: the file.
        first: the number of the first row, from 1; of a file of lines, its line.
        rows: the wanted columns (text as bytes or strings), or the lines of a file of lines.
        plain: whether a line is a text rather than JSON.
    """

    path: str
    first: int
    rows: pa.RecordBatch | list[bytes]
    plain: bool = False

    def fault(self, row: int, what: str) -> InputError:
        """The error for row ``row`` of the block."""
        if isinstance(self.rows, list):
            return InputError(self.path, what, line=self.first + row)
        return InputError(self.path, f"row {self.first + row:,}: {what}")


def read_rows(paths: Sequence[str], columns: Columns) -> Iterator[Block]:
    """The rows of some files, one file after the other.

    Raises:
        InputError: a file is missing, of an unknown kind, damaged, or lacks a column.
    """
    for path in paths:
        for file in files_of(path):
            yield from _reader(file)(file, columns)


def check_files(paths: Sequence[str], columns: Columns) -> None:
    """Looks at the beginning of each file; errors are those of ``read_rows``."""
    for path in paths:
        for file in files_of(path):
            next(_reader(file)(file, columns), None)


def files_of(path: str) -> list[str]:
    """The file, or those of a folder in the order of their names.

    Raises:
        InputError: the folder holds none.
    """
    if not Path(path).is_dir():
        return [path]
    inside = sorted(str(file) for file in Path(path).glob("*.parquet"))
    if not inside:
        raise InputError(path, "the folder holds no .parquet files: name the files themselves")
    return inside


def _reader(path: str) -> Callable[[str, Columns], Iterator[Block]]:
    name = Path(path).name.lower().removesuffix(".gz").removesuffix(".xz")
    found = _READERS.get(Path(name).suffix)
    if found is None:
        raise InputError(
            path,
            f"the ending should be one of {', '.join(_READERS)}, and .gz or .xz behind it but for "
            "Parquet: rename or convert the file",
        )
    return found


def _lines(path: str, columns: Columns, *, plain: bool = False) -> Iterator[Block]:
    if plain:
        _check_columns(path, columns, [LINE])
    first, number, size = 1, 0, 0
    held: list[bytes] = []
    with open_bytes(path) as file:
        while line := file.readline(_MOST + 1):
            number += 1
            if len(line) > _MOST:
                what = f"the line is longer than {_MOST:,} bytes: is this a file of lines?"
                raise InputError(path, what, line=number)
            held.append(line)
            size += len(line)
            if size >= _BLOCK:
                yield Block(path, first, held, plain)
                first, held, size = number + 1, [], 0
    if not number:
        raise InputError(path, "the file is empty")
    if held:
        yield Block(path, first, held, plain)


def _plain_lines(path: str, columns: Columns) -> Iterator[Block]:
    return _lines(path, columns, plain=True)


def _csv(path: str, columns: Columns) -> Iterator[Block]:
    if columns.embedding is not None:
        what = f"column {columns.embedding!r} should be lists of numbers, which CSV has none of"
        raise InputError(path, f"{what}: use JSON lines or Parquet, or an .npy file (--embeddings)")
    tabs = Path(path).name.lower().split(".")[-1 if path.endswith("tsv") else -2] == "tsv"
    delimiter = columns.delimiter or ("\t" if tabs else ",")
    try:
        parse = pcsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    except ValueError as error:
        raise ConfigError(f"delimiter {delimiter!r}: it should be one character") from error

    def opened(file: Any, **convert: Any) -> pcsv.CSVStreamingReader:
        read = pcsv.ReadOptions(use_threads=False, block_size=_MOST if whole else _BLOCK)
        return pcsv.open_csv(
            file,
            read_options=read,
            parse_options=parse,
            convert_options=pcsv.ConvertOptions(**convert),
        )

    # Arrow takes no row beyond a block. Most files have none, and small blocks are handed over
    # sooner; where there is one, the file is begun anew with large ones.
    done, whole = 0, False
    while True:
        row = 1
        try:
            with open_bytes(path) as file:
                # All as bytes: Arrow would guess types, and not say which row is no UTF-8.
                names = opened(file, check_utf8=False).schema.names
                _check_columns(path, columns, names)
                kinds = dict.fromkeys(columns.wanted, pa.large_binary())
            with open_bytes(path) as file:
                reader = opened(file, include_columns=columns.wanted, column_types=kinds)
                for batch in reader:
                    skip = min(max(done - row + 1, 0), batch.num_rows)
                    if skip < batch.num_rows:
                        yield Block(path, row + skip, batch.slice(skip))
                    row += batch.num_rows
                    done = max(done, row - 1)
            return
        except UnicodeDecodeError as error:
            what = "the header is not UTF-8 text: save the file as UTF-8"
            raise InputError(path, what, line=1) from error
        except pa.ArrowException as error:
            said = str(error).splitlines()[0][:300]
            if "straddling" in said and not whole:
                whole = True
                continue
            if "straddling" in said:
                said = f"a row is longer than {_MOST:,} bytes: is a quotation mark missing?"
            what = f"this is no sound CSV file: {said} (after row {row - 1:,})"
            raise InputError(path, what) from error


def _parquet(path: str, columns: Columns) -> Iterator[Block]:
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, columns, file.schema_arrow.names)
            _check_types(path, columns, file.schema_arrow)
            row = 1
            for batch in file.iter_batches(_ROWS, columns=columns.wanted):
                yield Block(path, row, batch)
                row += batch.num_rows
    except FileNotFoundError as error:
        raise InputError(path, "there is no such file: check the path") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0][:300]
        raise InputError(path, f"this is no Parquet file, or a damaged one ({said})") from error


def _check_types(path: str, columns: Columns, schema: pa.Schema) -> None:
    """Says before anything is read that a column cannot be what it is meant to be."""
    for name in columns.text:
        kind = schema.field(name).type
        if not _is_text(kind) and not pa.types.is_null(kind):
            raise InputError(path, f"column {name!r} is {kind}, not text: name another (--text)")
    if columns.id is not None:
        kind = schema.field(columns.id).type
        if not _is_text(kind) and not pa.types.is_integer(kind):
            what = (
                f"column {columns.id!r} is {kind}, not text or whole numbers: name another (--id)"
            )
            raise InputError(path, what)
    if columns.embedding is not None:
        kind = schema.field(columns.embedding).type
        if not _is_list(kind) or not pa.types.is_floating(kind.value_type):
            what = f"column {columns.embedding!r} is {kind}, not lists of floats: name another"
            raise InputError(path, f"{what} (--embedding-column)")
    if columns.labels is None:
        return
    kind = schema.field(columns.labels).type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    inner = kind.value_type if listed else None
    good = inner is not None and (_is_text(inner) or pa.types.is_integer(inner))
    if not good and not (_is_text(kind) and columns.separator is not None):
        hint = "; --label-separator cuts a text into labels" if _is_text(kind) else ""
        what = f"column {columns.labels!r} is {kind}, not a list of texts or whole numbers{hint}"
        raise InputError(path, what)


def _is_list(kind: pa.DataType) -> bool:
    of_one_length = pa.types.is_fixed_size_list(kind)
    return bool(of_one_length or pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_columns(path: str, columns: Columns, names: Sequence[str]) -> None:
    for name in columns.wanted:
        if names.count(name) != 1:
            what = "there is no column" if name not in names else "there are several columns"
            held = ", ".join(names[:50])
            what = f"{what} {name!r}; the columns are: {held or 'none'}"
            raise InputError(path, f"{what}. Name others with --text, --labels and --id")


_READERS: dict[str, Callable[[str, Columns], Iterator[Block]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _lines,
    ".parquet": _parquet,
    ".txt": _plain_lines,
}
