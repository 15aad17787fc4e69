"""The texts, labels and names in a block of rows, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ray_xml.embedding import fault
from ray_xml.errors import InputError
from ray_xml.json_text import parse_json, shown
from ray_xml.row_files import LINE, Block, Columns

_JOINT = "\n"  # between the columns of a text


@dataclass
class Rows:
    """A block's documents.

    Attributes:
        numbers: the row (or line) of each in the file, from 1.
        texts: one a document.
        labels: the names of each document's labels, in its order, perhaps with repeats.
        ids: the document's names; empty where none were asked for.
        vectors: the documents' embeddings, float [d] each and as long in all; empty where none were
            asked for.
        empty_labels: labels that were empty, and left out.
        cleaned_labels: labels that were changed: see ``clean_label``.
    """

    numbers: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    empty_labels: int = 0
    cleaned_labels: int = 0


def rows_of(block: Block, columns: Columns, *, allow_empty: bool) -> Rows:
    """Takes a block apart.

    Args:
        allow_empty: let documents be without text.

    Raises:
        InputError: a row is no JSON object, is no UTF-8 text, lacks what is needed, or has another
            type of value in a column.
    """
    rows = Rows()
    for number, record in enumerate(_records(block, columns)):
        if record is None:
            continue
        try:
            parts = [_text(record, name) for name in columns.text]
            text = _JOINT.join(part for part in parts if part)
            if not allow_empty and not text.strip():
                raise ValueError(
                    f"there is no text in {_listed(columns.text)}: fill it in, delete the row, or "
                    "let rows be without text (--allow-empty)"
                )
            rows.numbers.append(block.first + number)
            rows.texts.append(text)
            if columns.labels is not None:
                rows.labels.append(_labels(rows, record, columns))
            if columns.id is not None:
                rows.ids.append(_id(record, columns.id))
            if columns.embedding is not None:
                rows.vectors.append(_vector(record, columns.embedding, rows.vectors))
        except ValueError as error:
            raise block.fault(number, str(error)) from None
    return rows


def documents_in(block: Block) -> int:
    """How many documents ``rows_of`` finds in a block."""
    if not isinstance(block.rows, list):
        return int(block.rows.num_rows)
    if block.plain:
        return len(block.rows)
    return sum(bool(line.decode("utf-8-sig", "replace").strip()) for line in block.rows)


def content_hashes(texts: list[str]) -> np.ndarray:
    """uint64 [n]: equal for texts that are the same but for spacing and case."""
    keys = (" ".join(text.split()).casefold().encode("utf-8", "surrogatepass") for text in texts)
    digests = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def clean_label(label: str) -> str:
    """A label's name as it is kept: a run of white space (line ends too) is one space, none
    stands at the ends, and half a surrogate pair, which no UTF-8 text can hold, is U+FFFD."""
    label = " ".join(label.split())
    if label.isascii():
        return label
    return label.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _records(block: Block, columns: Columns) -> Sequence[dict[str, Any] | None]:
    """A mapping from column to value of each row; None for an empty line of JSON lines."""
    if isinstance(block.rows, list):
        return [_line(block, number, line) for number, line in enumerate(block.rows)]
    lists: dict[str, list[Any]] = {}
    for name in columns.wanted:
        column = block.rows.column(name)
        try:
            if name == columns.embedding:
                lists[name] = _arrays(column)
            else:
                lists[name] = [_decoded(value) for value in column.to_pylist()]
        except UnicodeDecodeError:
            for number, value in enumerate(column):
                try:
                    _decoded(value.as_py())
                except UnicodeDecodeError as error:
                    what = f"column {name!r} is not UTF-8 text (byte {error.start + 1} of it)"
                    raise block.fault(number, f"{what}: save the file as UTF-8") from None
            raise
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _arrays(column: pa.Array) -> list[np.ndarray | None]:
    """A column of lists, each as an array; None where there is none, or a number is missing."""
    found = []
    for one in column:
        values = one.values
        whole = values is not None and not values.null_count
        found.append(values.to_numpy(zero_copy_only=False) if whole else None)
    return found


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _line(block: Block, number: int, line: bytes) -> dict[str, Any] | None:
    first = block.first + number == 1
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        what = "the line is not UTF-8 text: save the file as UTF-8"
        place = block.first + number
        raise InputError(block.path, what, line=place, column=error.start + 1) from None
    if block.plain:
        return {LINE: text.removesuffix("\n").removesuffix("\r")}
    if not text.strip():
        return None
    try:
        record = parse_json(text)
    except ValueError as error:
        hint = "each line should be a JSON object" + (
            "; a file that is one JSON value becomes lines with jq -c '.[]'" if first else ""
        )
        raise block.fault(number, f"this is no JSON ({error}): {hint}") from None
    if not isinstance(record, dict):
        what = f"a JSON object with the columns as keys was expected, not {shown(record)}"
        raise block.fault(number, what)
    return record


def _value(record: dict[str, Any], name: str) -> Any:
    if name not in record:
        raise ValueError(f"there is no {name!r}; the keys are: {_listed(list(record)[:50])}")
    return record[name]


def _text(record: dict[str, Any], name: str) -> str:
    value = _value(record, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name!r} should be a text, not {shown(value)}")
    return value


def _id(record: dict[str, Any], name: str) -> str:
    value = _value(record, name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{name!r} should be a text or a whole number, not {shown(value)}")
    return str(value)


def _vector(record: dict[str, Any], name: str, before: list[np.ndarray]) -> np.ndarray:
    value = _value(record, name)
    if isinstance(value, list):
        try:
            value = np.array(value)
        except (ValueError, OverflowError):  # lists of lists, or numbers beyond any float
            value = None
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "fi":
        raise ValueError(f"{name!r} should be a list of numbers, an embedding")
    if len(value) == 0 or (before and len(value) != len(before[0])):
        wanted = f"not {len(before[0]):,} as those before" if before else "at least one is needed"
        raise ValueError(f"{name!r} has {len(value):,} numbers, {wanted}")
    with np.errstate(over="ignore"):
        vector: np.ndarray = value.astype(np.float32)
    wrong = fault(vector[None])
    if wrong is not None:
        raise ValueError(f"{name!r}: {wrong[1]}")
    return vector


def _labels(rows: Rows, record: dict[str, Any], columns: Columns) -> list[str]:
    assert columns.labels is not None
    name, separator, below = columns.labels, columns.separator, columns.below
    value = _value(record, name)
    if value is None:
        return []
    if isinstance(value, str):
        if separator is None:
            raise ValueError(
                f"{name!r} is a text, not a list of labels: say what stands between its labels "
                "(--label-separator ';')"
            )
        value = value.split(separator)
    if not isinstance(value, list):
        raise ValueError(f"{name!r} should be a list of labels, not {shown(value)}")
    kept = []
    for one in value:
        if below is not None and not (type(one) is int and 0 <= one < below):
            raise ValueError(f"{name!r} holds {shown(one)}: labels are 0 to {below - 1:,}")
        if type(one) is int:
            kept.append(str(one))
            continue
        if not isinstance(one, str):
            raise ValueError(f"{name!r} holds {shown(one)}: a label is a text or a whole number")
        label = clean_label(one)
        if not label:
            rows.empty_labels += 1
            continue
        rows.cleaned_labels += label != one.strip()
        kept.append(label)
    return kept


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
