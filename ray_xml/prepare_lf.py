"""The raw JSON of the Extreme Classification Repository's LF- data sets, where labels have texts.

    trn.json.gz tst.json.gz   {"uid", "title", "content", "target_ind", "target_rel"} a line
    lbl.json.gz               {"uid", "title"} a line; its place, from 0, is what target_ind names

``target_rel``, the degree of relevance, is not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_xml.label_book import NumberedLabels
from ray_xml.prepare_text import Prepared, prepare_text
from ray_xml.row_files import Columns, read_rows
from ray_xml.row_values import clean_label, rows_of


def prepare_lf(
    train: str | Path, test: str | Path, labels: str | Path, out: str | Path, **options: Any
) -> Prepared:
    """Writes a data set of such files; documents without text are let be.

    Args:
        train, test, labels: JSON lines, plain, ``.gz`` or ``.xz``.
        out: the folder to make.
        options: of ``prepare_text``: settings, filters, embeddings, embedding_weight, words,
            label_texts, name, overwrite, processes, progress.

    Raises: as ``prepare_text``.
    """
    names = label_titles(labels)
    columns = Columns(text=("title", "content"), labels="target_ind", below=len(names), id="uid")
    return prepare_text(
        [train],
        out,
        test=[test],
        columns=columns,
        labels=NumberedLabels(names),
        allow_empty=True,
        **options,
    )


def label_titles(path: str | Path) -> list[str]:
    """The titles of the labels, cleaned as any label's name; the uid where there is none.

    Raises:
        InputError: the file is faulty.
    """
    columns = Columns(text=("title",), id="uid")
    names: list[str] = []
    for block in read_rows([str(path)], columns):
        rows = rows_of(block, columns, allow_empty=True)
        named = zip(rows.texts, rows.ids, strict=True)
        names += [clean_label(title) or clean_label(uid) for title, uid in named]
    return names
