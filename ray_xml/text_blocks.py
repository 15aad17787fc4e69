"""A block of a file of texts, as any process takes it apart: what each of the two readings of
``prepare_text`` finds in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_xml.row_files import Block, Columns
from ray_xml.row_values import content_hashes, rows_of
from ray_xml.sparse import Csr
from ray_xml.text import TextSettings, Vectorizer
from ray_xml.text_fit import Terms, count_terms
from ray_xml.text_split import Draw

_SUMMARY_LENGTH = 200  # characters of a text that are kept to show what a document is


@dataclass(frozen=True)
class Job:
    """How a process reads blocks.

    Attributes:
        draw: which documents of train go to test; draws none where test has its own files.
    """

    columns: Columns
    allow_empty: bool
    draw: Draw


@dataclass(frozen=True)
class Seen:
    """What the first reading finds in a block of ``path`` whose first document is in row
    ``first``; ``vector`` is the length of its documents' vectors, 0 for none."""

    split: str
    labels: list[list[str]]
    hashes: np.ndarray
    fitted: int
    terms: Terms
    empty_labels: int
    cleaned_labels: int
    path: str
    first: int
    vector: int


@dataclass(frozen=True)
class Survey(Job):
    """The first reading; terms are not counted where there are no ``settings``."""

    settings: TextSettings | None

    def __call__(self, item: tuple[str, Block]) -> Seen:
        split, block = item
        rows = rows_of(block, self.columns, allow_empty=self.allow_empty)
        hashes = content_hashes(rows.texts)
        texts: list[str] = []
        if split == "train" and self.settings is not None:
            drawn = self.draw.drawn(hashes)
            given = zip(rows.texts, rows.labels, drawn, strict=True)
            texts = [text for text, labels, out in given if labels and not out]
        counts = {} if self.settings is None else count_terms(texts, self.settings)
        return Seen(
            split,
            rows.labels,
            hashes,
            len(texts),
            counts,
            rows.empty_labels,
            rows.cleaned_labels,
            block.path,
            rows.numbers[0] if rows.numbers else block.first,
            len(rows.vectors[0]) if rows.vectors else 0,
        )


@dataclass(frozen=True)
class Part:
    """Documents of one split as the second reading finds them.

    Attributes:
        source, places: the split of the file, and which of the block's documents these are.
        words: their features, but for dense columns.
        vectors: float32 [n, d], if their file has a column of them.
        lines: tell of each in JSON.
    """

    split: str
    source: str
    places: np.ndarray
    words: Csr
    vectors: np.ndarray | None
    labels: list[list[str]]
    hashes: np.ndarray
    lines: list[str] | None


@dataclass(frozen=True)
class Read(Job):
    """The second reading."""

    vectorizer: Vectorizer

    def __call__(self, item: tuple[str, Block]) -> list[Part]:
        split, block = item
        rows = rows_of(block, self.columns, allow_empty=self.allow_empty)
        hashes = content_hashes(rows.texts)
        words = self.vectorizer.word_rows(rows.texts)
        vectors = np.stack(rows.vectors) if rows.vectors else None
        file = Path(block.path).name
        names = rows.ids or [f"{file}:{number}" for number in rows.numbers]
        in_test = self.draw.in_test(hashes) if split == "train" else np.zeros(len(hashes), bool)
        parts = []
        for name, chosen in ((split, ~in_test), ("test", in_test)):
            places = np.flatnonzero(chosen)
            if not len(places):
                continue
            lines = None
            if name == "test" or self.columns.id is not None:
                lines = [_line(names[place], rows.texts[place]) for place in places]
            labels = [rows.labels[place] for place in places]
            own = None if vectors is None else vectors[places]
            parts.append(
                Part(name, split, places, words.take(places), own, labels, hashes[places], lines)
            )
        return parts


def _line(name: str, text: str) -> str:
    summary = " ".join(text[: 2 * _SUMMARY_LENGTH].split())[:_SUMMARY_LENGTH]
    return json.dumps({"name": name, "summary": summary}) + "\n"
