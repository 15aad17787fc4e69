"""What a prepared data-set folder holds: Arrow files, and ``meta.json`` to describe them.

    meta.json        counts, sizes, checksums (written last)
    <split>.arrow    an Arrow IPC file of one record batch, a row a document, with the columns
                     feature_ids: large_list<int32>, feature_values: large_list<float32>,
                     label_ids: large_list<int32>
    labels.txt       optional: one label name a line
    features.txt     optional: one feature name a line
    <split>.filter   optional: an Arrow IPC file like those, label_ids: large_list<int32>, of the
                     (document, label) pairs that do not count (see ``truth``)

``store_write`` makes such folders, ``store`` reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ray_xml.embedding import Embedding
from ray_xml.errors import DataSetError
from ray_xml.json_text import MOST, parse_json

FORMAT_VERSION = 1
META, LABEL_NAMES, FEATURE_NAMES = "meta.json", "labels.txt", "features.txt"
LABEL_TEXTS = "label_texts"  # the split of labels' texts, which are trained on besides train
SCHEMA = pa.schema(
    [
        ("feature_ids", pa.large_list(pa.int32())),
        ("feature_values", pa.large_list(pa.float32())),
        ("label_ids", pa.large_list(pa.int32())),
    ]
)
FILTER_SCHEMA = pa.schema([("label_ids", pa.large_list(pa.int32()))])
# Ids are int32, so no more. Beyond the second, a data set must have a byte for each: whatever has
# the size of the widths is then within reach of the files' own, not of a number in meta.json.
MAX_WIDTH, _FREE_WIDTH = 2**31 - 1, 1 << 24

Count = Annotated[int, Field(ge=0, le=MOST)]
Width = Annotated[int, Field(ge=0, le=MAX_WIDTH)]


def filter_file(split: str) -> str:
    """What the file of a split's filter is called."""
    return f"{split}.filter"


def is_split_name(name: str) -> bool:
    """Whether a split may be called so: it is part of a file's name."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) is not None


def is_file_name(name: str) -> bool:
    """Whether a file beside the splits may be called so: a plain name, in this folder."""
    own = name == META or name.endswith((".arrow", ".raw"))
    return not own and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", name) is not None


def _split_name(name: str) -> str:
    if not is_split_name(name):
        raise ValueError(f"{name[:80]!r} is no split's name: letters, digits, '_' and '-' are")
    return name


def _file_name(name: str) -> str:
    if not is_file_name(name):
        raise ValueError(f"{name[:80]!r} is no plain file name")
    return name


def _encodable(text: str) -> str:
    text.encode()  # half a surrogate pair cannot be written again
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class FileMeta(BaseModel):
    """Size and checksum of a file of the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: Count
    sha256: Text


class SplitMeta(FileMeta):
    """Counts of a split. A document that lacks both features and labels counts as lacking
    features only, so the two ``left_out`` numbers (and the two ``kept_no``) add up."""

    documents: Count
    feature_nnz: Count
    label_pairs: Count
    left_out_no_features: Count
    left_out_no_labels: Count
    kept_no_features: Count
    kept_no_labels: Count


class DataSetMeta(BaseModel):
    """The contents of ``meta.json``.

    Attributes:
        embedding: which features are dense columns, if any are.
        files: the folder's other files (label names, filters and so on).
        checksum: sha256 over all the above but the name: equal data, equal checksum.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: Text
    num_features: Width
    num_labels: Width
    splits: dict[Annotated[str, AfterValidator(_split_name)], SplitMeta]
    files: dict[Annotated[str, AfterValidator(_file_name)], FileMeta]
    embedding: Embedding | None = None
    checksum: Text

    @property
    def num_words(self) -> int:
        """Features that are no dense columns; they come first."""
        return self.num_features - (self.embedding.columns if self.embedding else 0)

    def computed_checksum(self) -> str:
        """What ``checksum`` has to be."""
        # What a data set does not have leaves no trace, so that older ones keep their checksum.
        content = self.model_dump(exclude={"name", "checksum"}, exclude_none=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def check_widths(self, where: str | Path) -> None:
        """Refuses widths that a data set of this size cannot need.

        Raises:
            DataSetError: with ``where``.
        """
        size = sum(one.bytes for one in (*self.splits.values(), *self.files.values()))
        for width, things in ((self.num_features, "features"), (self.num_labels, "labels")):
            if width > max(_FREE_WIDTH, size):
                raise DataSetError(
                    f"{where}: {width:,} {things} for {size:,} bytes of documents: check the "
                    f"header's count; up to {_FREE_WIDTH:,} are taken, or one a byte"
                )


def file_meta(path: Path) -> FileMeta:
    """Reads a file to describe it."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileMeta(bytes=file.tell(), sha256=sha256)


def read_json(path: Path) -> Any:
    """The JSON of a file, or None where there is none."""
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def is_meta(content: Any) -> bool:
    """Whether a tree describes a data set, of this format version or another, damaged or not."""
    return isinstance(content, dict) and {"format_version", "splits", "checksum"} <= content.keys()


def looks_like_data_set(folder: Path) -> bool:
    """Whether a folder holds what ``is_meta``."""
    return is_meta(read_json(folder / META))


def checked_meta(content: Any, where: str | Path) -> DataSetMeta:
    """A tree for which ``is_meta`` holds as meta data.

    Raises:
        DataSetError: with ``where``; it is of a newer format or damaged.
    """
    version = content["format_version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise DataSetError(
            f"{where} has data-set format {version}, and this ray_xml reads up to "
            f"{FORMAT_VERSION}: update ray_xml, or prepare the data set again"
        )
    try:
        meta = DataSetMeta.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:100]
        raise damaged(where, f"{place}: {first['msg']}") from error
    if meta.num_words < 0:
        raise damaged(where, f"more dense columns than its {meta.num_features:,} features")
    if meta.computed_checksum() != meta.checksum:
        raise damaged(where, "its checksum does not match its contents")
    meta.check_widths(where)
    return meta


def damaged(path: str | Path, what: str) -> DataSetError:
    """The error for a damaged file of a data set."""
    return DataSetError(f"{path} is damaged: {what}. Prepare the data set again or copy it anew")
