"""Reading a prepared data-set folder: its splits as views of memory-mapped Arrow files.

``store_meta`` says what such a folder holds, and ``store_write`` makes one.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ray_xml.arrow_split import Column, map_split
from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr
from ray_xml.store_meta import (
    FEATURE_NAMES,
    FILTER_SCHEMA,
    LABEL_NAMES,
    META,
    SCHEMA,
    DataSetMeta,
    FileMeta,
    checked_meta,
    damaged,
    file_meta,
    filter_file,
    is_meta,
    read_json,
)

_HOW_TO_MAKE = "make one with `ray-xml prepare xc TRAIN TEST OUT`"


class Split:
    """A split's documents: read-only views of the memory-mapped file.

    Offsets are sound. Ids and values are checked on first use, since it reads all of them: by a
    process that is about to read them anyway, and not by one that never does.
    """

    def __init__(
        self,
        path: Path,
        ids: Column,
        values: Column,
        labels: Column,
        widths: tuple[int, int],
        filter_path: Path | None,
    ) -> None:
        self._path, self._filter_path = path, filter_path
        self._features = Csr(ids[0], ids[1], values[1], widths[0])
        self._labels = Csr(labels[0], labels[1], None, widths[1])

    @property
    def num_documents(self) -> int:
        return self._features.num_rows

    @cached_property
    def features(self) -> Csr:
        """Csr [documents, num_features], finite float32 values.

        Raises:
            DataSetError: the file is damaged.
        """
        return self._checked(self._features, "features")

    @cached_property
    def labels(self) -> Csr:
        """Csr [documents, num_labels], no values.

        Raises:
            DataSetError: the file is damaged.
        """
        return self._checked(self._labels, "labels")

    @cached_property
    def filtered(self) -> Csr | None:
        """Csr [documents, num_labels], the pairs that do not count (see ``truth``), if any are
        named.

        Raises:
            DataSetError: their file is damaged.
        """
        path = self._filter_path
        if path is None:
            return None
        try:
            ((offsets, labels),) = map_split(path, FILTER_SCHEMA)
            rows = Csr(offsets, labels, None, self._labels.num_columns)
            rows.check("pairs")
            keys = rows.row_of_entry() * rows.num_columns + rows.packed().ids
            if (np.diff(keys) <= 0).any():
                raise ValueError("a row's labels are not strictly ascending")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(path, str(error)[:200]) from error
        if rows.num_rows != self.num_documents:
            raise damaged(path, f"it has {rows.num_rows:,} rows, not {self.num_documents:,}")
        return rows

    def _checked(self, rows: Csr, name: str) -> Csr:
        try:
            rows.check(name)
            rows.check_finite(name)
        except ValueError as error:
            raise damaged(self._path, str(error)) from error
        return rows


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
        content = read_json(path / META)
        if not is_meta(content):
            raise DataSetError(
                f"{path} is not a ray_xml data set (it has no usable {META}): {_HOW_TO_MAKE}"
            )
        meta = checked_meta(content, path / META)
        data_set = DataSet(path, meta)
        for name, file in data_set._all_files().items():
            try:
                size = (path / name).stat().st_size
            except OSError as error:
                raise damaged(path / name, f"it cannot be read: {error.strerror}") from error
            if size != file.bytes:
                raise damaged(path / name, f"it has {size} bytes, not {file.bytes}")
        return data_set

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.meta.checksum)

    def _all_files(self) -> dict[str, FileMeta]:
        splits = {f"{name}.arrow": split for name, split in self.meta.splits.items()}
        return {**splits, **self.meta.files}

    def verify(self) -> None:
        """Reads every file; raises DataSetError unless all checksums match."""
        for name, file in self._all_files().items():
            try:
                found = file_meta(self.path / name).sha256
            except OSError as error:
                raise damaged(self.path / name, f"it cannot be read: {error.strerror}") from error
            if found != file.sha256:
                raise damaged(self.path / name, "its checksum does not match")

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
            ids, values, labels = map_split(path, SCHEMA)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(path, str(error)[:200]) from error
        if len(ids[0]) != meta.documents + 1:
            raise damaged(path, "its number of rows is not the expected one")
        found = (len(ids[1]), len(values[1]), len(labels[1]))
        if found != (meta.feature_nnz, meta.feature_nnz, meta.label_pairs):
            raise damaged(path, "its number of entries is not the expected one")
        if not np.array_equal(ids[0], values[0]):
            raise damaged(path, "its features' ids and values are cut differently")
        widths, beside = (self.meta.num_features, self.meta.num_labels), filter_file(name)
        filter_path = self.path / beside if beside in self.meta.files else None
        return Split(path, ids, values, labels, widths, filter_path)

    def label_names(self) -> list[str] | None:
        """The label names by id, or None if the data set has none."""
        return self._names(LABEL_NAMES, self.meta.num_labels)

    def feature_names(self) -> list[str] | None:
        """The feature names by id, or None if the data set has none."""
        return self._names(FEATURE_NAMES, self.meta.num_features)

    def _names(self, file: str, count: int) -> list[str] | None:
        if file not in self.meta.files:
            return None
        try:
            # Not splitlines(): it would also split at characters that names may hold.
            names = (self.path / file).read_bytes().decode("utf-8").split("\n")[:-1]
        except (OSError, UnicodeDecodeError) as error:
            raise damaged(self.path / file, f"it cannot be read ({error})") from error
        if len(names) != count:
            raise damaged(self.path / file, f"it has {len(names):,} names, not {count:,}")
        return names


def _reopen(path: str, checksum: str) -> DataSet:
    data_set = DataSet.open(path)
    if data_set.meta.checksum != checksum:
        raise DataSetError(
            f"{path} is another data set than the one first opened (its checksum has changed): "
            "every process must see the same folder under this path"
        )
    return data_set
