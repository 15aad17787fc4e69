"""What a run takes from its data set: the rows that are fitted, those held out, the yardstick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.metrics import MetricSums
from ray_xml.partition import validation_rows
from ray_xml.propensity import propensities, propensity_constants
from ray_xml.run_config import RunConfig
from ray_xml.run_sections import DataSetConfig
from ray_xml.sparse import Csr, Joined, Rows, Subset
from ray_xml.store import DataSet, Split
from ray_xml.store_meta import LABEL_TEXTS


@dataclass(frozen=True)
class Fitted:
    """The documents that are trained on: those of train that are not held out, and behind them the
    labels' own texts.

    Attributes:
        features, labels: [N, V] and [N, L].
        left_out: [N, L], pairs that are not to be negatives (see ``truth``); None for none.
        rows: int64 [N], their numbers in the train split, counted on for label texts.
        texts: how many are label texts.
    """

    features: Rows
    labels: Rows
    left_out: Rows | None
    rows: np.ndarray
    texts: int


def split_rows(data: DataSet, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """(rows of train that are fitted, rows held out for validation), both int64 ascending."""
    total = data.split("train").num_documents
    held = validation_rows(total, config.training.validation, seed=config.training.seed)
    return np.setdiff1d(np.arange(total), held, assume_unique=True), held


def label_texts(data: DataSet, config: RunConfig) -> Split | None:
    """The labels' own texts, each a document of its label, if they are trained on."""
    if not config.training.label_texts or LABEL_TEXTS not in data.meta.splits:
        return None
    return data.split(LABEL_TEXTS)


def fitted_labels(data: DataSet, config: RunConfig) -> Rows:
    """The labels of ``fitted_documents``, for those who need no features: these are not touched."""
    rows, _ = split_rows(data, config)
    return _behind(Subset(data.split("train").labels, rows), label_texts(data, config))


def _behind(labels: Subset, texts: Split | None) -> Rows:
    return labels if texts is None else Joined(labels, texts.labels)


def fitted_documents(data: DataSet, config: RunConfig) -> Fitted:
    """What is trained on."""
    rows, _ = split_rows(data, config)
    train, texts = data.split("train"), label_texts(data, config)
    features, labels = Subset(train.features, rows), _behind(Subset(train.labels, rows), texts)
    left_out = None if train.filtered is None else Subset(train.filtered, rows)
    if texts is None:
        return Fitted(features, labels, left_out, rows, 0)
    count = texts.num_documents
    none = Csr(np.zeros(count + 1, np.int64), np.zeros(0, np.int32), None, labels.num_columns)
    behind = train.num_documents + np.arange(count)
    return Fitted(
        Joined(features, texts.features),
        labels,
        None if left_out is None else Joined(left_out, none),
        np.concatenate([rows, behind]),
        count,
    )


def metric_sums(data: DataSet, expected: DataSetConfig) -> MetricSums:
    """Empty metric sums with the data set's propensities, from all of train's label counts."""
    train = data.split("train")
    if expected.propensity_a is not None and expected.propensity_b is not None:
        a, b = expected.propensity_a, expected.propensity_b
    else:
        a, b = propensity_constants(expected.name or data.meta.name)
    counts = train.labels.column_counts()
    return MetricSums(1.0 / propensities(counts, train.num_documents, a, b), counts)
