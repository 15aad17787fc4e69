"""A model's words: how texts become its features, how labels and documents are called.

An exported model has them in its folder, a run in the data set that it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_xml.errors import CheckpointError, DataSetError, StorageError
from ray_xml.export import DOCUMENT_NAMES, is_export, label_names, train_documents
from ray_xml.json_text import parse_json
from ray_xml.partition import validation_rows
from ray_xml.run_config import RunConfig
from ray_xml.run_data import label_texts
from ray_xml.store import DataSet
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
    folder = model if is_export(model) else _open(data).path
    vectorizer = Vectorizer.load(folder)
    if vectorizer.num_features != num_features:
        raise DataSetError(
            f"{folder}: the vectoriser makes {vectorizer.num_features:,} features and the model "
            f"takes {num_features:,}: the data set was made anew since; train again, or put it back"
        )
    return vectorizer


def label_names_of(model: Path, data: str) -> list[str] | None:
    """Those of an exported model, or else of the run's data set, if there are any; arguments as for
    ``vectorizer_of``.

    Raises:
        CheckpointError: the exported model is damaged.
    """
    names = label_names(model)
    if names is None:
        with suppress(DataSetError, StorageError):  # a model predicts without its data set
            names = _open(data).label_names()
    return names


@dataclass(frozen=True)
class TrainDocuments:
    """The documents that a model was fitted to.

    Attributes:
        rows: int64 [n], their numbers in the train split, ascending.
        names: {row: name}, of those that have one.
    """

    rows: np.ndarray
    names: Mapping[int, str]


def train_documents_of(
    model: Path, config: RunConfig, fitted: int, added: int = 0
) -> TrainDocuments:
    """The documents behind the sparse channel's; labels' texts are numbered as if they followed
    those of the train split, and after them documents that came with added labels.

    Args:
        model: the folder of a run or an exported model.
        config: the run's.
        fitted: the documents in the sparse channel that were there in training.
        added: those that came with labels since.

    Raises:
        DataSetError: the run's data set is not there any more, or another.
        CheckpointError: the exported model is damaged, or does not tell.
    """
    if is_export(model):
        (total, behind), folder = train_documents(model), model
    else:
        data = _open(config.data)
        total, folder = data.split("train").num_documents, data.path
        texts = label_texts(data, config)
        behind = 0 if texts is None else texts.num_documents
    held = validation_rows(total, config.training.validation, seed=config.training.seed)
    rows = np.setdiff1d(np.arange(total), held, assume_unique=True)
    rows = np.concatenate([rows, np.arange(total, total + behind)])
    if len(rows) != fitted:
        what = f"{folder}: {len(rows):,} documents to train on, the model has {fitted:,}"
        if is_export(model):
            raise CheckpointError(f"{what}; export again")
        raise DataSetError(f"{what}: it is not the data set that the model was trained on")
    last = total + behind
    rows = np.concatenate([rows, np.arange(last, last + added)])
    return TrainDocuments(rows, _names(folder / DOCUMENT_NAMES, total))


def _names(file: Path, total: int) -> dict[int, str]:
    if not file.is_file():
        return {}
    try:
        # Not splitlines(): it would also split at characters that names may hold.
        lines = file.read_bytes().decode("utf-8").split("\n")[:-1]
        named = [parse_json(line)["name"] for line in lines]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataSetError(f"{file}: damaged ({error}); prepare the data again") from error
    if len(named) != total:
        raise DataSetError(f"{file}: {len(named):,} lines for {total:,} documents; prepare again")
    return {row: name for row, name in enumerate(named) if isinstance(name, str)}


def _open(data: str) -> DataSet:
    # Here, as it brings in storages: an exported model starts without them.
    from ray_xml.data_url import open_data

    return open_data(data)
