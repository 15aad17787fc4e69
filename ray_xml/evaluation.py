"""Measuring a trained model on a split, beside the most-frequent-labels baseline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ray_xml.errors import DataSetError
from ray_xml.metrics import top_labels_baseline
from ray_xml.predictor import Predictor
from ray_xml.run_data import metric_sums
from ray_xml.run_sections import DataSetConfig
from ray_xml.store import DataSet, Split

METRICS = tuple(f"{kind}@{k}" for kind in ("P", "nDCG", "PSP", "PSnDCG", "R") for k in (1, 3, 5))


def evaluate(
    predictor: Predictor,
    data: DataSet,
    split: str,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Metrics of ``predictor`` on a split, in percent; see ``metrics.MetricSums.result``.

    Raises:
        DataSetError: no such split, one without labels, or of other widths than the model's.
    """
    documents = labelled(data, split)
    check_labels(data, predictor)
    sums = metric_sums(data, predictor.config.dataset)
    done = 0
    for part in predictor.predict_blocks(documents.features, max(sums.ks)):
        sums.update(part.labels, documents.labels.slice(done, done + len(part.labels)))
        done += len(part.labels)
        progress(done, documents.num_documents)
    return sums.result()


def check_labels(data: DataSet, predictor: Predictor) -> None:
    """Raises DataSetError unless the data set has as many labels as the model."""
    if data.meta.num_labels != predictor.num_labels:
        raise DataSetError(
            f"{data.path} has {data.meta.num_labels:,} labels, the model {predictor.num_labels:,};"
            " give the data set that it was trained on"
        )


def labelled(data: DataSet, split: str) -> Split:
    """A split that has labels.

    Raises:
        DataSetError: no such split, or one without labels.
    """
    documents = data.split(split)
    if documents.labels.nnz == 0:
        raise DataSetError(f"{data.path}: split {split!r} has no labels to compare with")
    return documents


def baseline(data: DataSet, split: str, expected: DataSetConfig) -> dict[str, float]:
    """Metrics of giving every document the labels that are most frequent in train."""
    documents = data.split(split)
    sums = metric_sums(data, expected)
    best = top_labels_baseline(data.split("train").labels.column_counts(), max(sums.ks))
    for start, block in documents.labels.blocks(4096):
        del start
        sums.update(np.broadcast_to(best, (block.num_rows, len(best))), block)
    return sums.result()
