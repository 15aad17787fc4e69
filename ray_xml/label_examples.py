"""Labels to add to a trained model, from a file: their names and example documents.

A row holds the names of new labels and a text that is an example of each of them. Where there is
no text, a label's name is its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ray_xml.errors import DataSetError, InputError
from ray_xml.row_files import Block, Columns, check_files, read_rows
from ray_xml.row_values import Rows, rows_of
from ray_xml.sparse import Csr, stacked
from ray_xml.text import Vectorizer

_LINE = "\n"  # no name holds one, so a text that nothing cuts is one label


@dataclass(frozen=True)
class LabelExamples:
    """New labels, numbered from 0 in the order of the file.

    Attributes:
        names: m of them.
        features: [n, V] of the example documents.
        labels: [n, m]; every label has a document.
        named: bool [n]: documents that are a label's name.
    """

    names: list[str]
    features: Csr
    labels: Csr
    named: np.ndarray


def read_examples(
    path: str, columns: Columns, vectorizer: Vectorizer, known: Sequence[str]
) -> LabelExamples:
    """Reads a file of any kind that ``row_files`` reads.

    Args:
        columns: its labels are needed; without columns of text the names are all there is.
        known: the model's labels, which may not come again.

    Raises:
        InputError: the file is faulty; a row names no label, or one that the model has, or repeats
            an earlier one; a text has no word that the model knows; there are no rows.
        DataSetError: the model was trained with embeddings.
    """
    if vectorizer.embedding is not None:
        raise DataSetError(
            "labels cannot be added to a model that was trained with embeddings, which examples do "
            "not have; train again with the new labels' documents"
        )
    columns = replace(columns, separator=columns.separator or _LINE)
    book = _Book({name: number for number, name in enumerate(known)})
    parts: list[Csr] = []
    check_files([path], columns)
    for block in read_rows([path], columns):
        first = len(book.texts)
        book.take(block, rows_of(block, columns, allow_empty=True))
        features = vectorizer.transform(book.texts[first:])
        for at in np.flatnonzero(features.counts == 0)[:1].tolist():
            raise book.unknown(block, first + at)
        parts.append(features)
    if not book.texts:
        raise InputError(path, "there is no row, so there is no label to add")
    return LabelExamples(
        list(book.numbers),
        stacked(parts, vectorizer.num_features),
        Csr.from_lists(book.labels, len(book.numbers)),
        np.array(book.named),
    )


class _Book:
    """What was read so far: a document an entry of the lists."""

    def __init__(self, known: dict[str, int]) -> None:
        self._known = known
        self._seen: dict[tuple[str, str], int] = {}
        self.numbers: dict[str, int] = {}
        self.texts: list[str] = []
        self.labels: list[list[int]] = []
        self.named: list[bool] = []
        self._rows: list[int] = []

    def take(self, block: Block, rows: Rows) -> None:
        """Adds the rows of a block; errors are those of ``read_examples``."""
        for number, text, names in zip(rows.numbers, rows.texts, rows.labels, strict=True):
            row, own = number - block.first, list(dict.fromkeys(names))
            if not own:
                raise block.fault(row, "the row names no label: fill it in, or delete the row")
            for name in own:
                self._check(block, row, number, name, text)
            if text.strip():
                self._add(number, text, own, named=False)
                continue
            for name in own:
                self._add(number, name, [name], named=True)

    def _check(self, block: Block, row: int, number: int, name: str, text: str) -> None:
        if name in self._known:
            what = f"the model has a label {name!r} already, number {self._known[name]:,}"
            raise block.fault(row, f"{what}: give new labels only, or another name")
        key = name, " ".join(text.split())
        before = self._seen.setdefault(key, number)
        if before != number:
            what = (
                f"label {name!r} has the same text in row {before:,}"
                if key[1]
                else (f"label {name!r} stands without a text in row {before:,} already")
            )
            raise block.fault(row, f"{what}: delete one of them")

    def _add(self, number: int, text: str, names: list[str], *, named: bool) -> None:
        own = sorted(self.numbers.setdefault(name, len(self.numbers)) for name in names)
        self.texts.append(text)
        self.labels.append(own)
        self.named.append(named)
        self._rows.append(number)

    def unknown(self, block: Block, at: int) -> InputError:
        """The error for a document without a feature."""
        what = "no word of the text is one that the model knows"
        if self.named[at]:
            what = f"no word of the name {self.texts[at]!r} is one that the model knows"
        return block.fault(self._rows[at] - block.first, f"{what}: give another text")
