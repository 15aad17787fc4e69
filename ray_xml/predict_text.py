"""Documents to predict that are still texts: the model's own vectoriser makes their features."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ray_xml.data_url import open_data
from ray_xml.errors import DataSetError
from ray_xml.export import is_export
from ray_xml.row_files import Columns, check_files, read_rows
from ray_xml.row_values import rows_of
from ray_xml.sparse import Csr
from ray_xml.text import Vectorizer


def vectorizer_of(model: Path, data: str, num_features: int) -> Vectorizer:
    """The vectoriser of an exported model, or else of the data set that a run was trained on.

    Args:
        model: the folder of either.
        data: path or URL of the run's data set.
        num_features: the model's.

    Raises:
        DataSetError: there is none, or it is damaged or another data set's.
    """
    folder = model if is_export(model) else open_data(data).path
    vectorizer = Vectorizer.load(folder)
    if vectorizer.num_features != num_features:
        raise DataSetError(
            f"{folder}: the vectoriser makes {vectorizer.num_features:,} features and the model "
            f"takes {num_features:,}: the data set was made anew since; train again, or put it back"
        )
    return vectorizer


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
