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
from ray_xml.truth import Truth

_BLOCK = 4096  # documents counted at a time
METRICS = tuple(f"{kind}@{k}" for kind in ("P", "nDCG", "PSP", "PSnDCG", "R") for k in (1, 3, 5))


def evaluate(
    predictor: Predictor,
    data: DataSet,
    split: str,
    *,
    filtered: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Metrics of ``predictor`` on a split, in percent; see ``metrics.MetricSums.result``.

    Args:
        filtered: whether the pairs that the data set names for it are left out, see ``truth``.

    Raises:
        DataSetError: no such split, one without labels, or of other widths than the model's.
    """
    documents = labelled(data, split)
    check_labels(data, predictor)
    sums = metric_sums(data, predictor.config.dataset)
    truth, top = Truth.of(documents, filtered=filtered), max(sums.ks)
    done = 0
    for part in predictor.predict_blocks(documents.features, truth.asked(top)):
        own = truth.slice(done, done + len(part.labels))
        sums.update(own.best(*part, top)[0], own.labels)
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


def baseline(
    data: DataSet, split: str, expected: DataSetConfig, *, filtered: bool = True
) -> dict[str, float]:
    """Metrics of giving every document the labels that are most frequent in train."""
    documents = data.split(split)
    sums = metric_sums(data, expected)
    truth, top = Truth.of(documents, filtered=filtered), max(sums.ks)
    counts = data.split("train").labels.column_counts()
    best = top_labels_baseline(counts, truth.asked(top))
    for start in range(0, documents.num_documents, _BLOCK):
        own = truth.slice(start, min(start + _BLOCK, documents.num_documents))
        rows = np.broadcast_to(best, (own.given.num_rows, len(best)))
        sums.update(own.best(rows, np.zeros(rows.shape, np.float32), top)[0], own.labels)
    return sums.result()
