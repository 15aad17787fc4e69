"""Reading files of the extreme-classification (XC) repository's formats, a block at a time.

One file:   ``points features labels``, then a line a document: ``l1,l2 f:v f:v``
Two files:  ``points features``, then ``f:v f:v``; and ``points labels``, then ``l:v l:v``

Each may be plain, ``.gz`` or ``.xz``. A block of whole lines is judged and converted by
``xc_parse`` with numpy alone; only if that refuses it does ``xc_faults`` look for the reason.
"""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ray_xml.errors import InputError
from ray_xml.sparse import Csr
from ray_xml.xc_faults import first_fault, show
from ray_xml.xc_parse import LineForm, convert, empty
from ray_xml.xz_file import open_xz

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 16 << 20  # numpy takes up to 50 times as much to read a line
MAX_WIDTH = 2**31 - 1  # ids are int32


@contextmanager
def open_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a plain, ``.gz`` or ``.xz`` file for reading its decompressed bytes.

    Raises:
        InputError: The file is missing or unreadable, or its compressed data are damaged; also
            if that shows only while the body of the ``with`` statement reads.
    """
    try:
        with _opened(path) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(str(path), "there is no such file: check the path") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        what = f"the compressed file is damaged or cut short ({error}): fetch or pack it again"
        raise InputError(str(path), what) from error
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise InputError(str(path), what) from error


def _opened(path: str | Path) -> BinaryIO:
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": open_xz}
    try:
        file: BinaryIO = openers.get(Path(path).suffix, open)(path, "rb")
    except ValueError as error:  # a NUL, which no file's name may have
        raise OSError(str(error)) from error
    return file


def _whole_lines(path: str, block_bytes: int) -> Iterator[bytes]:
    """Blocks of whole lines, about ``block_bytes`` long; CRLF is LF and a tab is a space."""
    lines, held = 0, 0
    parts: list[bytes] = []  # the line that the last chunk left unfinished
    with open_bytes(path) as file:
        while chunk := file.read(block_bytes):
            first_end, cut = chunk.find(b"\n"), chunk.rfind(b"\n") + 1
            if held + (first_end if cut else len(chunk)) > MAX_LINE_BYTES:
                what = f"the line is longer than {MAX_LINE_BYTES} bytes: is this a text file?"
                raise InputError(path, what, line=lines + 1)
            if not cut:
                parts.append(chunk)
                held += len(chunk)
                continue
            block = b"".join([*parts, chunk[:cut]])
            parts, held = [chunk[cut:]], len(chunk) - cut
            yield block.replace(b"\r\n", b"\n").replace(b"\t", b" ")
            lines += block.count(b"\n")
    if held:
        what = (
            "the last line has no line end: the file may be cut short; "
            "if it is complete, add a line end"
        )
        raise InputError(path, what, line=lines + 1, column=held + 1)
    if not lines:
        raise InputError(path, "the file is empty: it should begin with a header line")


def _header(path: str, block_bytes: int) -> list[int]:
    """The two or three counts of the first line, checked."""
    lines = _whole_lines(path, min(block_bytes, 4096))
    text = next(lines).split(b"\n", 1)[0]
    lines.close()  # type: ignore[attr-defined]
    form = "'points features labels' (or 'points features', 'points labels' in split files)"
    counts: list[int] = []
    for match in re.finditer(rb"[^ ]+", text):
        token, column = match.group(), match.start() + 1
        most = MAX_WIDTH if counts else 2**63 - 1
        if re.fullmatch(rb"-[0-9]+", token):
            what = f"a count of the header is negative: {show(token)}"
        elif not re.fullmatch(rb"[0-9]+", token) or len(counts) == 3:
            what = f"the header should be {form}, not {show(text)}"
        elif len(token) > 19 or int(token) > most:
            what = f"the header's count {show(token)} is over the limit of {most}"
        else:
            counts.append(int(token))
            continue
        raise InputError(path, what, line=1, column=column)
    if len(counts) < 2:
        what = f"the header should be {form}, not {show(text)}"
        raise InputError(path, what, line=1, column=1)
    return counts


@dataclass(frozen=True)
class _Source:
    """One file: its header's number of lines and how to read them."""

    path: str
    rows: int
    form: LineForm
    block_bytes: int

    def blocks(self, first: int) -> Iterator[tuple[Csr, Csr]]:
        """(pairs, label lists) of consecutive lines; raises if the header's count is wrong."""
        done = 0
        for number, block in enumerate(_whole_lines(self.path, self.block_bytes)):
            lines = block[block.index(b"\n") + 1 :] if number == 0 else block
            found = lines.count(b"\n")
            if done + found > self.rows:
                # A fault in a line that the header does count comes first in the file.
                counted = lines.split(b"\n", self.rows - done)[:-1]
                self._parse(b"".join(text + b"\n" for text in counted), done + 2)
                what = f"there are more lines than the {self.rows} documents of the header"
                raise InputError(self.path, what, line=self.rows + 2, column=1)
            if done < first < done + found:
                lines = lines.split(b"\n", first - done)[-1]
                yield self._parse(lines, first + 2)
            elif found and first <= done:
                yield self._parse(lines, done + 2)
            done += found
        if done < self.rows:
            what = f"the header says {self.rows} documents, but only {done} lines follow"
            raise InputError(self.path, what, line=1, column=1)

    def _parse(self, text: bytes, line: int) -> tuple[Csr, Csr]:
        """Converts whole lines, of which the first is the file's line number ``line``."""
        parsed = convert(text, self.form)
        if parsed is None:
            raise first_fault(self.path, text, line, self.form)
        return parsed


@dataclass(frozen=True)
class XcReader:
    """Documents of one XC file, or of a feature file and its label file read in step.

    Made by ``open_xc``. No file stays open between calls; ``blocks`` may be called again.

    Attributes:
        path: the file (with the features), as given.
        labels_path: the label file of the split format, or None.
        num_documents, num_features, num_labels: what the headers say; num_labels is 0 for a
            feature file without a label file.
        has_labels: whether the input can hold labels at all.
    """

    path: str
    labels_path: str | None
    num_documents: int
    num_features: int
    num_labels: int
    has_labels: bool
    _features: _Source
    _labels: _Source | None

    def blocks(self, first: int = 0) -> Iterator[tuple[Csr, Csr]]:
        """Reads the documents in order, some megabytes at a time.

        Args:
            first: the document to begin with; lines before it are passed over unread.

        Yields:
            features: Csr [documents, num_features] with float32 values.
            labels: Csr [documents, num_labels] without values.

        Raises:
            InputError: A line is faulty, or there are fewer or more lines than the header says.
        """
        if self._labels is None:
            yield from self._features.blocks(first)
            return
        feature_blocks, label_blocks = self._features.blocks(first), self._labels.blocks(first)
        features, labels = empty(self._features.form)[0], empty(self._labels.form)[0]
        while True:
            # Reading on while one side is used up also lets each file's end be checked.
            if features.num_rows == 0:
                features = next(feature_blocks, (features,))[0]
            if labels.num_rows == 0:
                labels = next(label_blocks, (labels,))[0]
            rows = min(features.num_rows, labels.num_rows)
            if rows == 0:
                return
            names = labels.slice(0, rows).packed()
            yield (
                features.slice(0, rows).packed(),
                Csr(names.offsets, names.ids, None, names.num_columns),
            )
            features = features.slice(rows, features.num_rows)
            labels = labels.slice(rows, labels.num_rows)


def open_xc(
    path: str | Path,
    *,
    labels_path: str | Path | None = None,
    sort_ids: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> XcReader:
    """Reads and checks the header(s) of XC files.

    Args:
        path: the file: features and labels together, or features alone (a header of two counts).
        labels_path: the label file of the split format.
        sort_ids: accept ids in any order and sort them; an id twice in a line stays an error.
        block_bytes: about how much decompressed text ``blocks`` handles at a time.

    Raises:
        InputError: A file is missing, unreadable or empty, or its header is wrong.
    """
    path = str(path)
    counts = _header(path, block_bytes)
    if labels_path is None:
        labels = counts[2] if len(counts) == 3 else None
        both = _Source(
            path, counts[0], LineForm(counts[1], labels, "feature", sort_ids), block_bytes
        )
        return XcReader(
            path, None, counts[0], counts[1], labels or 0, labels is not None, both, None
        )
    labels_path = str(labels_path)
    label_counts = _header(labels_path, block_bytes)
    for file, found in ((path, counts), (labels_path, label_counts)):
        if len(found) == 3:
            what = (
                "the header has three counts, so this file holds features and labels together; "
                "with a label file beside it, two are expected"
            )
            raise InputError(file, what, line=1, column=1)
    if counts[0] != label_counts[0]:
        what = f"the header says {label_counts[0]} documents, but that of {path} says {counts[0]}"
        raise InputError(labels_path, what, line=1, column=1)
    features = _Source(path, counts[0], LineForm(counts[1], None, "feature", sort_ids), block_bytes)
    names = _Source(
        labels_path, counts[0], LineForm(label_counts[1], None, "label", sort_ids), block_bytes
    )
    return XcReader(path, labels_path, counts[0], counts[1], label_counts[1], True, features, names)
