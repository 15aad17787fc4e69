"""Writing a prepared data-set folder (``store_meta`` says what it holds).

It is built beside its final place, as a ``PartialFolder``, and put there at the end: under its
final name it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa

from ray_xml.embedding import Embedding
from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr
from ray_xml.store_meta import (
    FEATURE_NAMES,
    FILTER_SCHEMA,
    FORMAT_VERSION,
    LABEL_NAMES,
    META,
    SCHEMA,
    DataSetMeta,
    FileMeta,
    SplitMeta,
    file_meta,
    filter_file,
    is_file_name,
    is_split_name,
    looks_like_data_set,
)
from ray_xml.store_partial import PartialFolder, writing

_RAW_PARTS = {
    "feature_offsets": pa.int64(),
    "feature_ids": pa.int32(),
    "feature_values": pa.float32(),
    "label_offsets": pa.int64(),
    "label_ids": pa.int32(),
}


class SplitWriter:
    """Takes a split's documents block by block; made by ``DataSetWriter.split``.

    The blocks go to one raw file per array, so memory stays flat. At the end these are mapped
    and written as one record batch, which needs the split's size on the disk twice for a while.

    Attributes:
        seen: documents appended, with those that were left out.
        meta: once the split is ended.
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
        self.seen = 0
        self._kept: list[np.ndarray] = []
        self.meta: SplitMeta | None = None

    @property
    def kept(self) -> np.ndarray:
        """int64 [documents]: which of those ``seen`` the split holds."""
        return np.concatenate([np.zeros(0, np.int64), *self._kept])

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
        lacking = (bare | unlabelled) & self._leave_out
        rows = np.flatnonzero(~lacking)
        self._kept.append(rows + self.seen)
        self.seen += len(lacking)
        if len(rows) < len(lacking):
            features, labels = features.take(rows), labels.take(rows)
        assert features.values is not None
        arrays = {
            "feature_offsets": features.offsets[1:] + self._counts["feature_nnz"],
            "feature_ids": features.ids,
            "feature_values": features.values,
            "label_offsets": labels.offsets[1:] + self._counts["label_pairs"],
            "label_ids": labels.ids,
        }
        with writing(self._path):
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
        with writing(self._path):
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
        _write_batch(self._path, columns, SCHEMA)
        self.meta = SplitMeta(**file_meta(self._path).model_dump(), **self._counts)


def _write_batch(path: Path, columns: list[pa.Array], schema: pa.Schema) -> None:
    # Without allow_64bit Arrow refuses columns of 2**31 entries and more.
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, schema, options=options) as writer,
    ):
        writer.write_batch(pa.record_batch(columns, schema=schema))


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
        embedding: of the last features, where these are dense columns.
        overwrite: replace an existing data set, once the new one is complete.

    Attributes:
        splits: those begun, by name; each has its ``meta`` once it is ended.
        meta: of the whole, once the folder is in place.

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
        embedding: Embedding | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(os.path.realpath(path))
        self._name, self._overwrite = name, overwrite
        self._num_features, self._num_labels = num_features, num_labels
        self._embedding = embedding
        self.splits: dict[str, SplitWriter] = {}
        self._files: dict[str, FileMeta] = {}
        self.meta: DataSetMeta | None = None
        self._check_place()
        self._partial = PartialFolder(self.path)
        self._folder = self._partial.path

    def _check_place(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise DataSetError(f"{self.path} is not a folder: choose another output folder")
        if not any(self.path.iterdir()):
            return
        if not looks_like_data_set(self.path):
            raise DataSetError(
                f"{self.path} holds files that are not a ray_xml data set, so it is left alone: "
                "choose another output folder"
            )
        if not self._overwrite:
            raise DataSetError(
                f"{self.path} already holds a data set: choose another output folder, "
                "or pass overwrite=True (--overwrite) to replace it"
            )

    def __enter__(self) -> DataSetWriter:
        with writing(self.path):
            self._partial.make()
        return self

    def split(self, name: str, *, leave_out_empty: bool) -> SplitWriter:
        """Begins a split.

        Args:
            name: letters, digits, '_' and '-'.
            leave_out_empty: leave out (and count) documents without features or without labels,
                as training data should; otherwise they are kept (and counted).
        """
        if not is_split_name(name) or name in self.splits:
            raise DataSetError(
                f"split name '{name}' is taken or has other characters than letters, digits, "
                "'_' and '-': choose another"
            )
        widths = (self._num_features, self._num_labels)
        self.splits[name] = SplitWriter(self._folder, name, widths, leave_out_empty)
        return self.splits[name]

    def write_filter(self, split: str, pairs: Csr) -> None:
        """Adds the pairs of an ended split that do not count.

        Args:
            pairs: [documents, num_labels], of the documents that were appended in their order,
                with those that were left out.
        """
        writer = self.splits[split]
        assert pairs.num_rows == writer.seen
        assert pairs.num_columns == self._num_labels
        rows = pairs.take(writer.kept)
        column = pa.LargeListArray.from_arrays(pa.array(rows.offsets), pa.array(rows.ids))
        name = self._new_file(filter_file(split))
        with writing(self._folder / name):
            _write_batch(self._folder / name, [column], FILTER_SCHEMA)
        self._files[name] = file_meta(self._folder / name)

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

        self.write_lines(file, lines())

    def write_text_file(self, name: str, text: str) -> None:
        """Adds a text file, such as a vectoriser's settings, to the folder."""
        self.write_lines(name, [text])

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        """Adds a text file of any length; each line brings its line end."""
        path = self._folder / self._new_file(name)
        try:
            with writing(path), path.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(lines)
        except UnicodeEncodeError as error:
            raise DataSetError(f"{name}: text that cannot be written as UTF-8: {error}") from error
        self._files[name] = file_meta(path)

    def _new_file(self, name: str) -> str:
        if name in self._files or not is_file_name(name):
            raise DataSetError(f"file name '{name}' is taken or not a plain name: choose another")
        return name

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self._finish()
        finally:
            self._partial.remove()

    def _finish(self) -> None:
        splits = {name: writer.meta for name, writer in self.splits.items()}
        meta = DataSetMeta(
            format_version=FORMAT_VERSION,
            name=self._name,
            num_features=self._num_features,
            num_labels=self._num_labels,
            splits={name: split for name, split in splits.items() if split is not None},
            files=self._files,
            embedding=self._embedding,
            checksum="",
        )
        assert splits.keys() == meta.splits.keys(), "a split was begun but not ended"
        meta.check_widths(self.path)
        meta = meta.model_copy(update={"checksum": meta.computed_checksum()})
        text = meta.model_dump_json(indent=2, exclude_none=True) + "\n"
        (self._folder / META).write_text(text, encoding="utf-8")
        self._partial.flush()
        self._check_place()  # again: it may have changed meanwhile
        self._partial.put_in_place(replaces=looks_like_data_set(self.path))
        self.meta = meta
