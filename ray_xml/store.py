"""The prepared data-set folder: Arrow files to memory-map, and ``meta.json`` to describe them.

    meta.json        counts, sizes, checksums (written last)
    <split>.arrow    an Arrow IPC file of one record batch, a row a document, with the columns
                     feature_ids: large_list<int32>, feature_values: large_list<float32>,
                     label_ids: large_list<int32>
    labels.txt       optional: one label name a line
    features.txt     optional: one feature name a line

A folder is built beside its final place, as ``.NAME.partial-*``, and renamed at the end: under
its final name it is complete. A partial folder that a killed process left may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr

FORMAT_VERSION = 1
META, LABEL_NAMES, FEATURE_NAMES = "meta.json", "labels.txt", "features.txt"
_SCHEMA = pa.schema(
    [
        ("feature_ids", pa.large_list(pa.int32())),
        ("feature_values", pa.large_list(pa.float32())),
        ("label_ids", pa.large_list(pa.int32())),
    ]
)
_RAW_PARTS = {
    "feature_offsets": pa.int64(),
    "feature_ids": pa.int32(),
    "feature_values": pa.float32(),
    "label_offsets": pa.int64(),
    "label_ids": pa.int32(),
}
_HOW_TO_MAKE = "make one with `ray-xml prepare xc TRAIN TEST OUT`"


class FileMeta(BaseModel):
    """Size and checksum of a file of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class SplitMeta(FileMeta):
    """Counts of a split. A document that lacks both features and labels counts as lacking
    features only, so the two ``left_out`` numbers (and the two ``kept_no``) add up."""

    documents: int
    feature_nnz: int
    label_pairs: int
    left_out_no_features: int
    left_out_no_labels: int
    kept_no_features: int
    kept_no_labels: int


class DataSetMeta(BaseModel):
    """The contents of ``meta.json``.

    Attributes:
        files: the folder's text files (label names and so on).
        checksum: sha256 over all the above but the name: equal data, equal checksum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: str
    num_features: int
    num_labels: int
    splits: dict[str, SplitMeta]
    files: dict[str, FileMeta]
    checksum: str

    def computed_checksum(self) -> str:
        """What ``checksum`` has to be."""
        content = self.model_dump(exclude={"name", "checksum"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_meta(path: Path) -> FileMeta:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileMeta(bytes=file.tell(), sha256=sha256)


def _flush(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a rename cannot overtake it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns a full disk and the like into a DataSetError."""
    try:
        yield
    except OSError as error:
        raise DataSetError(
            f"{path} cannot be written ({error.strerror or error}): "
            "make room there, or choose another output folder"
        ) from error


class SplitWriter:
    """Takes a split's documents block by block; made by ``DataSetWriter.split``.

    The blocks go to one raw file per array, so memory stays flat. At the end these are mapped
    and written as one record batch, which needs the split's size on the disk twice for a while.
    """

    def __init__(self, folder: Path, name: str, widths: tuple[int, int], leave_out: bool) -> None:
        self._path, self._name = folder / f"{name}.arrow", name
        self._widths, self._leave_out = widths, leave_out
        counts = SplitMeta.model_fields.keys() - FileMeta.model_fields.keys()
        self._counts: dict[str, Any] = dict.fromkeys(counts, 0)
        self._raw: dict[str, IO[bytes]] = {}
        for part, kind in _RAW_PARTS.items():
            self._raw[part] = (folder / f"{name}.{part}.raw").open("wb")
            if kind == pa.int64():
                self._raw[part].write(np.zeros(1, np.int64).tobytes())  # the first offset
        self.meta: SplitMeta | None = None

    def append(self, features: Csr, labels: Csr) -> None:
        """Adds documents.

        Args:
            features: Csr [documents, num_features] with finite float32 values.
            labels: Csr [documents, num_labels]; values are ignored.

        Raises:
            DataSetError: The block does not fit the data set; nothing of it was added.
        """
        features, labels = features.packed(), labels.packed()
        self._check(features, labels)
        bare, unlabelled = features.counts == 0, labels.counts == 0
        unlabelled &= ~bare
        action = "left_out" if self._leave_out else "kept"
        self._counts[f"{action}_no_features"] += int(bare.sum())
        self._counts[f"{action}_no_labels"] += int(unlabelled.sum())
        if self._leave_out and (lacking := bare | unlabelled).any():
            rows = np.flatnonzero(~lacking)
            features, labels = features.take(rows), labels.take(rows)
        assert features.values is not None
        arrays = {
            "feature_offsets": features.offsets[1:] + self._counts["feature_nnz"],
            "feature_ids": features.ids,
            "feature_values": features.values,
            "label_offsets": labels.offsets[1:] + self._counts["label_pairs"],
            "label_ids": labels.ids,
        }
        with _writing(self._path):
            for part, array in arrays.items():
                self._raw[part].write(np.ascontiguousarray(array).data)
        self._counts["documents"] += features.num_rows
        self._counts["feature_nnz"] += features.nnz
        self._counts["label_pairs"] += labels.nnz

    def _check(self, features: Csr, labels: Csr) -> None:
        found = (features.num_columns, labels.num_columns)
        if found != self._widths:
            what = f"are {found[0]} features and {found[1]} labels wide"
        elif features.num_rows != labels.num_rows:
            what = f"have {features.num_rows} rows of features and {labels.num_rows} of labels"
        elif features.values is None or features.values.dtype != np.float32:
            what = "have no float32 feature values"
        elif not np.isfinite(features.values).all():
            what = "have feature values that are not finite"
        elif not all(
            rows.ids.dtype == np.int32
            and (rows.nnz == 0 or (rows.ids.min() >= 0 and rows.ids.max() < rows.num_columns))
            for rows in (features, labels)
        ):
            what = "have ids that are not int32 or out of range"
        else:
            return
        raise DataSetError(
            f"split '{self._name}': the documents to add {what}; the data set was begun for "
            f"{self._widths[0]} features and {self._widths[1]} labels"
        )

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        with _writing(self._path):
            with ExitStack() as stack:  # closes them all, even if one cannot be flushed
                for file in self._raw.values():
                    stack.enter_context(file)
            if kind is None:
                self._assemble()
            for file in self._raw.values():
                Path(file.name).unlink()

    def _assemble(self) -> None:
        raw = {part: _map_raw(self._raw[part].name, kind) for part, kind in _RAW_PARTS.items()}
        columns = [
            pa.LargeListArray.from_arrays(raw["feature_offsets"], raw["feature_ids"]),
            pa.LargeListArray.from_arrays(raw["feature_offsets"], raw["feature_values"]),
            pa.LargeListArray.from_arrays(raw["label_offsets"], raw["label_ids"]),
        ]
        # Without allow_64bit Arrow refuses columns of 2**31 entries and more.
        options = pa.ipc.IpcWriteOptions(allow_64bit=True)
        with (
            pa.OSFile(str(self._path), "wb") as sink,
            pa.ipc.new_file(sink, _SCHEMA, options=options) as writer,
        ):
            writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        self.meta = SplitMeta(**_file_meta(self._path).model_dump(), **self._counts)


def _map_raw(path: str, kind: pa.DataType) -> pa.Array:
    """A raw file of numbers as a memory-mapped Arrow array."""
    # An empty file cannot be mapped.
    buffer = pa.memory_map(path).read_buffer() if os.path.getsize(path) else pa.py_buffer(b"")
    return pa.Array.from_buffers(kind, buffer.size // (kind.bit_width // 8), [None, buffer])


class DataSetWriter:
    """Writes a data-set folder; a context manager, whose normal end puts the folder in place.

    Args:
        path: the folder to make. It may exist if it is empty.
        name: the data set's name.
        num_features, num_labels: widths of all splits.
        overwrite: replace an existing data set, once the new one is complete.

    Raises:
        DataSetError: There is something at ``path`` that may not be replaced.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        num_features: int,
        num_labels: int,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self._name, self._overwrite = name, overwrite
        self._num_features, self._num_labels = num_features, num_labels
        self._splits: dict[str, SplitWriter] = {}
        self._files: dict[str, FileMeta] = {}
        self.meta: DataSetMeta | None = None  # set when the folder is in place
        self._check_place()
        self._folder = self._sibling("partial")

    def _sibling(self, purpose: str) -> Path:
        return self.path.parent / f".{self.path.name}.{purpose}-{secrets.token_hex(4)}"

    def _check_place(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise DataSetError(f"{self.path} is not a folder: choose another output folder")
        if not any(self.path.iterdir()):
            return
        if not _looks_like_data_set(self.path):
            raise DataSetError(
                f"{self.path} holds files that are not a ray_xml data set, so it is left alone: "
                "choose another output folder"
            )
        if not self._overwrite:
            raise DataSetError(
                f"{self.path} already holds a data set: choose another output folder, "
                "or pass overwrite=True to replace it"
            )

    def __enter__(self) -> DataSetWriter:
        with _writing(self.path):
            self._folder.mkdir(parents=True)
        return self

    def split(self, name: str, *, leave_out_empty: bool) -> SplitWriter:
        """Begins a split.

        Args:
            name: letters, digits, '_' and '-'.
            leave_out_empty: leave out (and count) documents without features or without labels,
                as training data should; otherwise they are kept (and counted).
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in self._splits:
            raise DataSetError(
                f"split name '{name}' is taken or has other characters than letters, digits, "
                "'_' and '-': choose another"
            )
        widths = (self._num_features, self._num_labels)
        self._splits[name] = SplitWriter(self._folder, name, widths, leave_out_empty)
        return self._splits[name]

    def write_label_names(self, names: Iterable[str]) -> None:
        """Writes ``labels.txt``; raises DataSetError unless there is one name a label."""
        self._write_names(LABEL_NAMES, names, self._num_labels)

    def write_feature_names(self, names: Iterable[str]) -> None:
        """Writes ``features.txt``; raises DataSetError unless there is one name a feature."""
        self._write_names(FEATURE_NAMES, names, self._num_features)

    def _write_names(self, file: str, names: Iterable[str], count: int) -> None:
        def lines() -> Iterator[str]:
            number = 0
            for number, name in enumerate(names, start=1):
                if "\n" in name or "\r" in name:
                    raise DataSetError(f"{file}: name {number} has a line end in it: {name!r}")
                yield name + "\n"
            if number != count:
                raise DataSetError(f"{file}: there are {number} names for {count} ids")

        self._write_lines(file, lines())

    def write_text_file(self, name: str, text: str) -> None:
        """Adds a text file, such as a vectoriser's settings, to the folder."""
        self._write_lines(name, [text])

    def _write_lines(self, name: str, lines: Iterable[str]) -> None:
        taken = name in self._files or name == META or name.endswith((".arrow", ".raw"))
        if taken or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise DataSetError(f"file name '{name}' is taken or not a plain name: choose another")
        path = self._folder / name
        try:
            with _writing(path), path.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
        except UnicodeEncodeError as error:
            raise DataSetError(f"{name}: text that cannot be written as UTF-8: {error}") from error
        self._files[name] = _file_meta(path)

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _writing(self.path):
                    self._finish()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        splits = {name: writer.meta for name, writer in self._splits.items()}
        meta = DataSetMeta(
            format_version=FORMAT_VERSION,
            name=self._name,
            num_features=self._num_features,
            num_labels=self._num_labels,
            splits={name: split for name, split in splits.items() if split is not None},
            files=self._files,
            checksum="",
        )
        assert splits.keys() == meta.splits.keys(), "a split was begun but not ended"
        meta = meta.model_copy(update={"checksum": meta.computed_checksum()})
        (self._folder / META).write_text(meta.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for path in [*self._folder.iterdir(), self._folder]:
            _flush(path)
        self._check_place()  # again: it may have changed meanwhile
        old = self._sibling("old")
        replaces = _looks_like_data_set(self.path)
        if replaces:
            self.path.rename(old)
        try:
            self._folder.rename(self.path)
        except OSError:
            if replaces:
                old.rename(self.path)
            raise
        _flush(self.path.parent)
        shutil.rmtree(old, ignore_errors=True)
        self.meta = meta


def _read_json(path: Path) -> Any:
    """The JSON of a file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _looks_like_data_set(folder: Path) -> bool:
    meta = _read_json(folder / META)
    return isinstance(meta, dict) and {"format_version", "splits", "checksum"} <= meta.keys()


@dataclass(frozen=True)
class Split:
    """A split's documents: read-only views of the memory-mapped file.

    Attributes:
        features: Csr [documents, num_features], float32 values.
        labels: Csr [documents, num_labels], no values.
    """

    features: Csr
    labels: Csr

    @property
    def num_documents(self) -> int:
        return self.features.num_rows


class DataSet:
    """A data-set folder opened for reading; make it with ``DataSet.open``.

    It pickles as its path and checksum, and is opened again where it is unpickled.
    """

    def __init__(self, path: Path, meta: DataSetMeta) -> None:
        self.path, self.meta = path, meta
        self._opened: dict[str, Split] = {}

    @staticmethod
    def open(path: str | Path) -> DataSet:
        """Opens a folder and checks its files' sizes, without reading them.

        Raises:
            DataSetError: The folder is missing, is no data set, is of a newer format or damaged.
        """
        path = Path(path).absolute()
        if not path.is_dir():
            raise DataSetError(f"there is no data-set folder {path}: {_HOW_TO_MAKE}")
        content = _read_json(path / META)
        if not _looks_like_data_set(path):
            raise DataSetError(
                f"{path} is not a ray_xml data set (it has no usable {META}): {_HOW_TO_MAKE}"
            )
        version = content["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataSetError(
                f"{path} has data-set format {version}, and this ray_xml reads up to "
                f"{FORMAT_VERSION}: update ray_xml, or prepare the data set again"
            )
        try:
            meta = DataSetMeta.model_validate(content)
        except ValidationError as error:
            raise _damaged(path / META, str(error)) from error
        data_set = DataSet(path, meta)
        if meta.computed_checksum() != meta.checksum:
            raise _damaged(path / META, "its checksum does not match its contents")
        for name, file in data_set._all_files().items():
            try:
                size = (path / name).stat().st_size
            except OSError as error:
                raise _damaged(path / name, f"it cannot be read: {error.strerror}") from error
            if size != file.bytes:
                raise _damaged(path / name, f"it has {size} bytes, not {file.bytes}")
        return data_set

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.meta.checksum)

    def _all_files(self) -> dict[str, FileMeta]:
        splits = {f"{name}.arrow": split for name, split in self.meta.splits.items()}
        return {**splits, **self.meta.files}

    def verify(self) -> None:
        """Reads every file; raises DataSetError unless all checksums match."""
        for name, file in self._all_files().items():
            if _file_meta(self.path / name).sha256 != file.sha256:
                raise _damaged(self.path / name, "its checksum does not match")

    def split(self, name: str) -> Split:
        """Maps a split's file.

        Raises:
            DataSetError: There is no such split, or its file is damaged.
        """
        if name not in self.meta.splits:
            raise DataSetError(
                f"{self.path} has no split '{name}': it has {', '.join(self.meta.splits)}"
            )
        if name not in self._opened:
            self._opened[name] = self._map(name)
        return self._opened[name]

    def _map(self, name: str) -> Split:
        path, meta = self.path / f"{name}.arrow", self.meta.splits[name]
        try:
            with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
                batch = reader.get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, str(error)) from error
        if batch.schema != _SCHEMA or batch.num_rows != meta.documents:
            raise _damaged(path, "its columns or its number of rows are not the expected ones")
        ids, values, labels = (_arrays(column) for column in batch.columns)
        found = (len(ids[1]), len(values[1]), len(labels[1]))
        if found != (meta.feature_nnz, meta.feature_nnz, meta.label_pairs):
            raise _damaged(path, "its number of entries is not the expected one")
        return Split(
            Csr(ids[0], ids[1], values[1], self.meta.num_features),
            Csr(labels[0], labels[1], None, self.meta.num_labels),
        )

    def label_names(self) -> list[str] | None:
        """The label names by id, or None if the data set has none."""
        return self._names(LABEL_NAMES)

    def feature_names(self) -> list[str] | None:
        """The feature names by id, or None if the data set has none."""
        return self._names(FEATURE_NAMES)

    def _names(self, file: str) -> list[str] | None:
        if file not in self.meta.files:
            return None
        # Not splitlines(): it would also split at characters that names may hold.
        return (self.path / file).read_bytes().decode("utf-8").split("\n")[:-1]


def _arrays(column: pa.LargeListArray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [rows + 1] offsets and [entries] items of a list column, as views."""
    return column.offsets.to_numpy(), column.values.to_numpy()


def _damaged(path: Path, what: str) -> DataSetError:
    return DataSetError(f"{path} is damaged: {what}. Prepare the data set again or copy it anew")


def _reopen(path: str, checksum: str) -> DataSet:
    data_set = DataSet.open(path)
    if data_set.meta.checksum != checksum:
        raise DataSetError(
            f"{path} is another data set than the one first opened (its checksum has changed): "
            "every process must see the same folder under this path"
        )
    return data_set
