"""What a prepared data-set folder holds: Arrow files, and ``meta.json`` to describe them.

    meta.json        counts, sizes, checksums (written last)
    <split>.arrow    an Arrow IPC file of one record batch, a row a document, with the columns
                     feature_ids: large_list<int32>, feature_values: large_list<float32>,
                     label_ids: large_list<int32>
    labels.txt       optional: one label name a line
    features.txt     optional: one feature name a line

``store_write`` makes such folders, ``store`` reads them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

FORMAT_VERSION = 1
META, LABEL_NAMES, FEATURE_NAMES = "meta.json", "labels.txt", "features.txt"
SCHEMA = pa.schema(
    [
        ("feature_ids", pa.large_list(pa.int32())),
        ("feature_values", pa.large_list(pa.float32())),
        ("label_ids", pa.large_list(pa.int32())),
    ]
)


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


def file_meta(path: Path) -> FileMeta:
    """Reads a file to describe it."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileMeta(bytes=file.tell(), sha256=sha256)


def read_json(path: Path) -> Any:
    """The JSON of a file, or None where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def looks_like_data_set(folder: Path) -> bool:
    """Whether a folder holds a data set, of this format version or another, damaged or not."""
    meta = read_json(folder / META)
    return isinstance(meta, dict) and {"format_version", "splits", "checksum"} <= meta.keys()
