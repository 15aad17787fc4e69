"""Reading files of the extreme-classification (XC) repository's formats, a block at a time.

One file:   ``points features labels``, then a line a document: ``l1,l2 f:v f:v``
Two files:  ``points features``, then ``f:v f:v``; and ``points labels``, then ``l:v l:v``

Each may be plain, ``.gz`` or ``.xz``. A block of whole lines is judged and converted with numpy
alone. Only if that finds something wrong does a plain loop read the same block token by token,
to name the first fault by line and column; so the fast path need not know where faults are.
"""

from __future__ import annotations

import gzip
import lzma
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ray_xml.errors import InputError
from ray_xml.sparse import Csr

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 256 << 20
MAX_WIDTH = 2**31 - 1  # ids are int32
_TOO_LARGE = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in float32

# What a byte may be. Separators come last and in the order of _SEPARATORS.
_DIGIT, _SIGN, _ILLEGAL, _SEPARATOR = 0, 1, 2, 3
_SEPARATORS = b",: \n"
_COMMA, _COLON, _SPACE, _NEWLINE = range(4)
_KINDS = np.full(256, _ILLEGAL, np.uint8)
_KINDS[list(b"0123456789")] = _DIGIT
_KINDS[list(b"+-.eE")] = _SIGN
_KINDS[list(_SEPARATORS)] = _SEPARATOR + np.arange(4)
_TO_SPACES = bytes.maketrans(b",:\n", b"   ")

# What a token is follows from the separators around it (and whether it is empty), see _roles.
_WRONG, _BLANK, _LABEL, _PAIR, _VALUE = range(5)
_TOKEN = re.compile(rb"([^,: \n]*)([,: \n])")


def _roles(*, with_labels: bool) -> np.ndarray:
    """uint8 [2, 4, 4]: a token's role by (is empty, separator before it, separator after it)."""
    roles = np.full((2, 4, 4), _WRONG, np.uint8)
    for before in (_SPACE, _NEWLINE):
        roles[0, before, _COLON] = _PAIR
        roles[1, before, [_SPACE, _NEWLINE]] = _BLANK
    roles[0, _COLON, [_SPACE, _NEWLINE]] = _VALUE
    if with_labels:
        for before in (_NEWLINE, _COMMA):
            roles[0, before, [_COMMA, _SPACE, _NEWLINE]] = _LABEL
    return roles


@contextmanager
def open_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a plain, ``.gz`` or ``.xz`` file for reading its decompressed bytes.

    Raises:
        InputError: The file is missing or unreadable, or its compressed data are damaged; also
            if that shows only while the body of the ``with`` statement reads.
    """
    openers: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with openers.get(Path(path).suffix, open)(path, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise InputError(str(path), "there is no such file: check the path") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        what = f"the compressed file is damaged or cut short ({error}): fetch or pack it again"
        raise InputError(str(path), what) from error
    except OSError as error:
        what = f"the file cannot be read: {error.strerror or error}"
        raise InputError(str(path), what) from error


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


def _show(token: bytes) -> str:
    """A token as it may stand in a message."""
    return repr((token[:37] + b"..." if len(token) > 40 else token).decode("ascii", "replace"))


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
            what = f"a count of the header is negative: {_show(token)}"
        elif not re.fullmatch(rb"[0-9]+", token) or len(counts) == 3:
            what = f"the header should be {form}, not {_show(text)}"
        elif len(token) > 19 or int(token) > most:
            what = f"the header's count {_show(token)} is over the limit of {most}"
        else:
            counts.append(int(token))
            continue
        raise InputError(path, what, line=1, column=column)
    if len(counts) < 2:
        what = f"the header should be {form}, not {_show(text)}"
        raise InputError(path, what, line=1, column=1)
    return counts


def _value_fault(token: bytes) -> str | None:
    """What is wrong with a value, or None."""
    if re.fullmatch(rb"[+-]?(nan|inf|infinity)", token, re.IGNORECASE):
        return f"the value {_show(token)} is not finite: leave the entry out or give a number"
    try:
        if not (set(token) <= set(b"0123456789+-.eE")):
            raise ValueError
        value = float(token)
    except ValueError:
        return f"the value {_show(token)} is not a number"
    if abs(value) >= _TOO_LARGE:
        return f"the value {_show(token)} is too large for a 32-bit number"
    return None


def _id_fault(
    token: bytes, name: str, width: int, seen: dict[int, None], sort_ids: bool
) -> str | None:
    """What is wrong with an id, or None; ``seen`` holds the line's earlier ids in order."""
    if re.fullmatch(rb"-[0-9]+", token):
        return f"the {name} id {_show(token)} is negative: ids count from 0"
    if not re.fullmatch(rb"[0-9]+", token):
        return f"the {name} id {_show(token)} is not a whole number"
    digits = token.lstrip(b"0") or b"0"
    number = int(digits) if len(digits) <= 10 else width
    if number >= width:
        allowed = f"so ids go from 0 to {width - 1}" if width else "so no id is allowed"
        return (
            f"the {name} id {_show(token)} is out of range: the header says {width} {name}s, "
            f"{allowed}"
        )
    if number in seen:
        return f"the {name} id {number} stands twice in this line"
    last = next(reversed(seen), -1)
    if number < last and not sort_ids:
        return (
            f"the {name} id {number} comes after {last}: ids must be ascending; "
            "sort them, or ask for it with sort_ids"
        )
    seen[number] = None
    return None


def _misplaced(token: bytes, before: int, after: int, with_labels: bool) -> str:
    """Why a token may not stand between these two separators."""
    if not token and after in (_COMMA, _COLON):
        return f"an id is missing before '{chr(_SEPARATORS[after])}'"
    if not token:
        return f"{'a value' if before == _COLON else 'a label'} is missing here"
    if not with_labels:
        return f"{_show(token)} is not an 'id:value' pair, which is all this file may hold"
    if _COLON in (before, after):
        return f"{_show(token)} has a ',' or ':' too many around it: write 'l1,l2 f:v f:v'"
    return f"{_show(token)} is not a 'feature:value' pair; labels stand at the line's beginning"


def _offsets(is_one: np.ndarray, last_of_line: np.ndarray) -> np.ndarray:
    """int64 [lines + 1]: how many of the tokens up to each line's end are marked."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(is_one, dtype=np.int64)[last_of_line]])


def _numbers(text: bytes, count: int) -> np.ndarray | None:
    """float64 [count]: the numbers of a text, or None where a token is no number."""
    if count == 0:
        return np.zeros(0)
    with warnings.catch_warnings():
        # Text that does not parse is a DeprecationWarning or a ValueError, by numpy's version.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            numbers = np.fromstring(text.translate(_TO_SPACES), np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    return numbers if len(numbers) == count else None


@dataclass(frozen=True)
class _Source:
    """One file: its header and how to read its lines.

    Attributes:
        labels: the width of the label lists, or None for a split file, which has none.
        pairs: the width of the ``id:value`` pairs.
        pair_name: what an id of a pair is called in messages.
    """

    path: str
    rows: int
    pairs: int
    labels: int | None
    pair_name: str
    sort_ids: bool
    block_bytes: int

    def blocks(self) -> Iterator[tuple[Csr, Csr]]:
        """(pairs, label lists) of consecutive lines; raises if the header's count is wrong."""
        done = 0
        roles = _roles(with_labels=self.labels is not None)
        for number, block in enumerate(_whole_lines(self.path, self.block_bytes)):
            lines = block[block.index(b"\n") + 1 :] if number == 0 else block
            found = lines.count(b"\n")
            if done + found > self.rows:
                # A fault in a line that the header does count comes first in the file.
                counted = lines.split(b"\n", self.rows - done)[:-1]
                self._parse(b"".join(text + b"\n" for text in counted), done + 2, roles)
                what = f"there are more lines than the {self.rows} documents of the header"
                raise InputError(self.path, what, line=self.rows + 2, column=1)
            if found:
                yield self._parse(lines, done + 2, roles)
            done += found
        if done < self.rows:
            what = f"the header says {self.rows} documents, but only {done} lines follow"
            raise InputError(self.path, what, line=1, column=1)

    def _parse(self, text: bytes, line: int, roles: np.ndarray) -> tuple[Csr, Csr]:
        """Converts whole lines, of which the first is the file's line number ``line``."""
        if not text:
            return self._empty(0)
        parsed = self._convert(text, roles)
        if parsed is None:
            raise self._first_fault(text, line, roles)
        return parsed

    def _empty(self, rows: int) -> tuple[Csr, Csr]:
        ids, offsets = np.zeros(0, np.int32), np.zeros(rows + 1, np.int64)
        values = np.zeros(0, np.float32)
        return Csr(offsets, ids, values, self.pairs), Csr(offsets, ids, None, self.labels or 0)

    def _convert(self, text: bytes, roles: np.ndarray) -> tuple[Csr, Csr] | None:
        """The fast path: (pairs, label lists), or None if anything at all is wrong."""
        kinds = _KINDS[np.frombuffer(text, np.uint8)]
        if (kinds == _ILLEGAL).any():
            return None
        ends = np.flatnonzero(kinds >= _SEPARATOR)
        starts = np.concatenate([[0], ends[:-1] + 1])
        after = kinds[ends] - _SEPARATOR
        before = np.concatenate([np.array([_NEWLINE], np.uint8), after[:-1]])
        role = roles.reshape(-1)[16 * (starts == ends) + 4 * before + after]
        if (role == _WRONG).any():
            return None
        is_label, is_pair = role == _LABEL, role == _PAIR
        has_sign = np.logical_or.reduceat(kinds == _SIGN, starts)
        if (has_sign & (is_label | is_pair)).any():
            return None
        filled = role != _BLANK
        numbers = _numbers(text, int(np.count_nonzero(filled)))
        if numbers is None:
            return None
        values = numbers[role[filled] == _VALUE]
        if (np.abs(values) >= _TOO_LARGE).any():
            return None
        last_of_line = np.flatnonzero(after == _NEWLINE)
        pairs = self._rows(
            numbers[is_pair[filled]], _offsets(is_pair, last_of_line), self.pairs, values
        )
        labels = self._rows(
            numbers[is_label[filled]], _offsets(is_label, last_of_line), self.labels or 0, None
        )
        return None if pairs is None or labels is None else (pairs, labels)

    def _rows(
        self, numbers: np.ndarray, offsets: np.ndarray, width: int, values: np.ndarray | None
    ) -> Csr | None:
        """Rows of ids, or None if an id is out of range, stands twice or is out of order."""
        if (numbers >= width).any():
            return None
        ids = numbers.astype(np.int32)
        values = None if values is None else values.astype(np.float32)
        inside = np.ones(len(ids) + 1, np.bool_)  # not the first of its line
        inside[offsets] = False
        inside = inside[1:-1]
        if self.sort_ids and (np.diff(ids)[inside] < 0).any():
            row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
            order = np.lexsort((ids, row))
            ids = ids[order]
            values = None if values is None else values[order]
        if (np.diff(ids)[inside] <= 0).any():
            return None
        return Csr(offsets, ids, values, width)

    def _first_fault(self, text: bytes, line: int, roles: np.ndarray) -> InputError:
        """The slow path: the first fault of lines that the fast path refused."""
        start = 0
        while start < len(text):
            stop = text.index(b"\n", start) + 1
            before = _NEWLINE
            seen: dict[int, dict[int, None]] = {_LABEL: {}, _PAIR: {}}
            for match in _TOKEN.finditer(text, start, stop):
                token, after = match.group(1), _SEPARATORS.index(match.group(2))
                what = self._token_fault(token, before, after, roles, seen)
                if what is not None:
                    column = match.start() - start + 1
                    return InputError(self.path, what, line=line, column=column)
                before = after
            start, line = stop, line + 1
        raise AssertionError(f"{self.path}: lines up to {line} were refused without a fault")

    def _token_fault(
        self,
        token: bytes,
        before: int,
        after: int,
        roles: np.ndarray,
        seen: dict[int, dict[int, None]],
    ) -> str | None:
        """What is wrong with a token between these two separators, or None."""
        if strange := re.search(rb"[^ -~]", token):
            byte = strange.group()[0]
            return f"the byte 0x{byte:02x} is not plain ASCII text: is this file binary or damaged?"
        role = roles[int(not token), before, after]
        if role == _WRONG:
            return _misplaced(token, before, after, self.labels is not None)
        if role == _VALUE:
            return _value_fault(token)
        if role == _PAIR:
            return _id_fault(token, self.pair_name, self.pairs, seen[_PAIR], self.sort_ids)
        if role == _LABEL:
            return _id_fault(token, "label", self.labels or 0, seen[_LABEL], self.sort_ids)
        return None


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

    def blocks(self) -> Iterator[tuple[Csr, Csr]]:
        """Reads the documents in order, some megabytes at a time.

        Yields:
            features: Csr [documents, num_features] with float32 values.
            labels: Csr [documents, num_labels] without values.

        Raises:
            InputError: A line is faulty, or there are fewer or more lines than the header says.
        """
        if self._labels is None:
            yield from self._features.blocks()
            return
        feature_blocks, label_blocks = self._features.blocks(), self._labels.blocks()
        features, labels = self._features._empty(0)[0], self._labels._empty(0)[0]
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
        both = _Source(path, counts[0], counts[1], labels, "feature", sort_ids, block_bytes)
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
    features = _Source(path, counts[0], counts[1], None, "feature", sort_ids, block_bytes)
    names = _Source(labels_path, counts[0], label_counts[1], None, "label", sort_ids, block_bytes)
    return XcReader(path, labels_path, counts[0], counts[1], label_counts[1], True, features, names)
