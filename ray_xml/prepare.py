"""From XC-repository files to a prepared data-set folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ray_xml.errors import InputError
from ray_xml.filter_file import FilterPairs, check_splits
from ray_xml.store_meta import DataSetMeta
from ray_xml.store_write import DataSetWriter
from ray_xml.xc_io import XcReader, open_bytes, open_xc

FilePath = str | Path
_LONGEST_NAME = 1 << 20  # bytes
Progress = Callable[[str, int, int], None]


def prepare_xc(
    train: FilePath,
    test: FilePath,
    out: FilePath,
    *,
    name: str | None = None,
    dev: FilePath | None = None,
    train_labels: FilePath | None = None,
    test_labels: FilePath | None = None,
    dev_labels: FilePath | None = None,
    label_names: FilePath | None = None,
    feature_names: FilePath | None = None,
    filters: Mapping[str, FilePath] = MappingProxyType({}),
    sort_ids: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DataSetMeta:
    """Reads XC files (plain, ``.gz`` or ``.xz``) and writes a data-set folder.

    Documents without features or without labels are left out of train and kept elsewhere.

    Args:
        train, test, dev: files with features and labels, or with features alone.
        out: the folder to make.
        name: the data set's name; by default that of the folder.
        train_labels, test_labels, dev_labels: label files of the split format.
        label_names, feature_names: text files with one name a line, in the order of the ids.
        filters: by split, files of pairs that do not count in evaluation (see ``filter_file``).
        sort_ids: accept ids in any order.
        overwrite: replace a data set that is at ``out``, once the new one is complete.
        progress: called after each block with the split, its documents done and in all.

    Returns:
        What was written.

    Raises:
        InputError: A file is faulty, or the files do not belong together.
        DataSetError: ``out`` may not be written.
    """
    files = {"train": (train, train_labels), "test": (test, test_labels)}
    if dev is not None:
        files["dev"] = (dev, dev_labels)
    readers = {
        split: open_xc(path, labels_path=labels, sort_ids=sort_ids)
        for split, (path, labels) in files.items()
    }
    for split, reader in readers.items():
        _check_header(split, reader, readers["train"])
    check_splits(filters, readers)
    first = readers["train"]
    # Faults of small files should not wait for the long part, so they come first.
    pairs = {split: FilterPairs.read(path) for split, path in filters.items()}
    matrices = {
        split: found.rows(readers[split].num_documents, first.num_labels)
        for split, found in pairs.items()
    }
    with DataSetWriter(
        out,
        name=name or Path(out).absolute().name,
        num_features=first.num_features,
        num_labels=first.num_labels,
        overwrite=overwrite,
    ) as writer:
        if label_names is not None:
            writer.write_label_names(_names(label_names, "labels", first.num_labels))
        if feature_names is not None:
            writer.write_feature_names(_names(feature_names, "features", first.num_features))
        for split, reader in readers.items():
            with writer.split(split, leave_out_empty=split == "train") as part:
                done = 0
                for features, labels in reader.blocks():
                    part.append(features, labels)
                    done += features.num_rows
                    if progress is not None:
                        progress(split, done, reader.num_documents)
            if split in matrices:
                writer.write_filter(split, matrices[split])
            if split == "train" and part.meta is not None and part.meta.documents == 0:
                what = "no document has both features and labels, so there is nothing to train on"
                raise InputError(reader.path, what)
    assert writer.meta is not None
    return writer.meta


def _check_header(split: str, reader: XcReader, train: XcReader) -> None:
    """Raises InputError unless a split has labels and is as wide as train."""
    if not reader.has_labels:
        what = (
            "the header has two counts, so the file holds features only: "
            f"give its label file too ({split}_labels)"
        )
        raise InputError(reader.path, what, line=1, column=1)
    for things, here, there, file, other in (
        ("features", reader.num_features, train.num_features, reader.path, train.path),
        (
            "labels",
            reader.num_labels,
            train.num_labels,
            reader.labels_path or reader.path,
            train.labels_path or train.path,
        ),
    ):
        if here != there:
            what = (
                f"the header says {here} {things}, but that of {other} says {there}: "
                "the files must come from one data set and share their ids"
            )
            raise InputError(file, what, line=1)


def _names(path: FilePath, things: str, count: int) -> Iterator[str]:
    """The lines of a text file; raises InputError unless there are ``count`` of them."""
    number = 0
    with open_bytes(path) as file:
        while line := file.readline(_LONGEST_NAME + 1):
            number += 1
            if len(line) > _LONGEST_NAME:
                what = f"the name is longer than {_LONGEST_NAME:,} bytes: is this a text file?"
                raise InputError(str(path), what, line=number)
            if number > count:
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = "the name is not UTF-8 text: save the file as UTF-8"
                raise InputError(str(path), what, line=number, column=error.start + 1) from error
            name = text.removesuffix("\n").removesuffix("\r")
            if "\r" in name:
                what = "there is a carriage return inside the name: use LF or CRLF line ends"
                raise InputError(str(path), what, line=number, column=name.index("\r") + 1)
            yield name
    if number != count:
        what = (
            f"the file has {number} names, but the header says {count} {things}: "
            "it needs one name a line, line 1 for id 0"
        )
        raise InputError(str(path), what)
