"""Documents to predict, from wherever they come, cut into parts that can be read on their own.

    FOLDER           a prepared data set (a split of it), or Parquet and Arrow files
    FILE             .parquet, .arrow, .feather, or an XC file with or without labels
    URL              the same but XC files
    texts            files of any kind that ``row_files`` reads

A part is a run of documents of one file. It is read in blocks, so that neither a file nor a
part is ever whole in memory. XC files and files of lines: what lies before a part has to be passed
over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ray_xml.data_url import open_data
from ray_xml.embedding import EmbeddingFile, check_one_source
from ray_xml.errors import InputError, StorageError
from ray_xml.row_files import Columns, files_of, read_rows
from ray_xml.row_values import documents_in
from ray_xml.storage import file_system, is_url
from ray_xml.store_meta import META
from ray_xml.xc_io import open_xc

Kind = Literal["data set", "xc", "parquet", "arrow", "texts"]
_KINDS: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}


@dataclass(frozen=True)
class Texts:
    """How the documents of a file of texts are read.

    Attributes:
        columns: what is what.
        embeddings: an .npy file with their vectors, or None.
    """

    columns: Columns
    embeddings: str | None = None


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
        texts: of a file of texts.
    """

    place: str
    kind: Kind
    name: str
    size: int
    rows: int
    split: str = ""
    checksum: str = ""
    texts: Texts | None = None

    def told(self) -> dict[str, Any]:
        """What tells it from another, for JSON."""
        told: dict[str, Any] = {"name": self.name, "bytes": self.size, "rows": self.rows}
        if self.texts is not None:
            told["columns"] = [*self.texts.columns.text, self.texts.columns.embedding]
            if self.texts.embeddings is not None:
                file = Path(self.texts.embeddings)
                told["embeddings"] = {"name": file.name, "bytes": file.stat().st_size}
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


def find_inputs(source: str, split: str) -> list[InputFile]:
    """The files of ``source``, in the order of their names.

    Raises:
        InputError: there is nothing to read, or it is damaged.
        DataSetError: a data set that is damaged, or has no such split.
    """
    with told(source):
        system, root = opened(source)
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


def find_texts(source: str, texts: Texts) -> list[InputFile]:
    """The files of texts at ``source``, with their documents counted.

    Raises:
        InputError: one is missing or faulty, or there is another number of vectors.
    """
    if is_url(source):
        raise InputError(source, "texts are read from files: fetch it first")
    check_one_source(texts.embeddings, texts.columns.embedding)
    if texts.embeddings is not None:  # workers may run elsewhere
        texts = replace(texts, embeddings=str(Path(texts.embeddings).resolve()))
    found = []
    for path in files_of(source):
        rows = sum(documents_in(block) for block in read_rows([path], texts.columns))
        place = str(Path(path).resolve())
        size = Path(path).stat().st_size
        found.append(InputFile(place, "texts", Path(path).name, size, rows, texts=texts))
    if texts.embeddings is not None:
        vectors = EmbeddingFile(texts.embeddings)
        vectors.check(sum(file.rows for file in found), vectors.columns)
    return found


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


def opened(place: str) -> tuple[fs.FileSystem, str]:
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
            with system.open_input_file(info.path) as source:
                if kind == "parquet":
                    rows = pq.ParquetFile(source).metadata.num_rows
                else:
                    with pa.ipc.open_file(source) as reader:
                        batches = range(reader.num_record_batches)
                        rows = sum(reader.get_batch(number).num_rows for number in batches)
        except pa.ArrowException as error:
            raise InputError(
                place, f"this is no {kind} file, or a damaged one ({error})"
            ) from error
    return InputFile(place, kind, info.base_name, info.size, rows)


@contextmanager
def told(place: str) -> Iterator[None]:
    """Turns what file systems say into our own errors."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        kind = StorageError if is_url(place) else None
        said = f"cannot be read ({type(error).__name__}: {error})"
        raise (kind(f"{place} {said}") if kind else InputError(place, said)) from error
