"""Documents to predict that are still texts: the model's own vectoriser makes their features."""

from __future__ import annotations

from collections.abc import Iterator

from ray_xml.row_files import Columns, check_files, read_rows
from ray_xml.row_values import rows_of
from ray_xml.sparse import Csr
from ray_xml.text import Vectorizer


def text_documents(source: str, columns: Columns, vectorizer: Vectorizer) -> Iterator[Csr]:
    """Blocks of the features of the texts in a file of any kind that ``row_files`` reads; rows
    without text have none.

    Raises:
        InputError: the file is faulty; at once if that shows at its beginning.
    """
    check_files([source], columns)
    return (
        vectorizer.transform(rows_of(block, columns, allow_empty=True).texts)
        for block in read_rows([source], columns)
    )


def texts_of(source: str, columns: Columns) -> Iterator[str]:
    """The texts in such a file, one by one; errors as above."""
    check_files([source], columns)
    for block in read_rows([source], columns):
        yield from rows_of(block, columns, allow_empty=True).texts
