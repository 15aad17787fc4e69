"""Documents to predict that are still texts: the model's own vectoriser makes their features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ray_xml.embedding import EmbeddingFile, check_one_source
from ray_xml.row_files import Columns, check_files, read_rows
from ray_xml.row_values import rows_of
from ray_xml.sparse import Csr
from ray_xml.text import Vectorizer

Given = tuple[list[str], np.ndarray | None]


def text_documents(
    source: str, columns: Columns, vectorizer: Vectorizer, embeddings: str | None = None
) -> Iterator[Csr]:
    """Blocks of the features of the texts in a file of any kind that ``row_files`` reads; rows
    without text have none.

    Args:
        embeddings: an .npy file with a vector a row, if they are not in a column.

    Raises:
        InputError: a file is faulty; at once if that shows at its beginning.
        DataSetError: the model needs embeddings, or takes none.
    """
    return (vectorizer.transform(*given) for given in texts_of(source, columns, embeddings))


def texts_of(source: str, columns: Columns, embeddings: str | None = None) -> Iterator[Given]:
    """(texts, their vectors or None), block by block; errors as above."""
    check_one_source(embeddings, columns.embedding)
    check_files([source], columns)
    file = None if embeddings is None else EmbeddingFile(embeddings)
    return _blocks(source, columns, file)


def _blocks(source: str, columns: Columns, file: EmbeddingFile | None) -> Iterator[Given]:
    done = 0
    for block in read_rows([source], columns):
        rows = rows_of(block, columns, allow_empty=True)
        if not rows.texts:
            continue
        vectors = np.stack(rows.vectors) if rows.vectors else None
        if file is not None:
            vectors = file.take(np.arange(done, done + len(rows.texts)))
        done += len(rows.texts)
        yield rows.texts, vectors
    if file is not None:
        file.check(done, file.columns)
