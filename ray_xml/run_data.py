"""What a run takes from its data set: the rows that are fitted, those held out, the yardstick."""

from __future__ import annotations

import numpy as np

from ray_xml.metrics import MetricSums
from ray_xml.partition import validation_rows
from ray_xml.propensity import propensities, propensity_constants
from ray_xml.run_config import RunConfig
from ray_xml.run_sections import DataSetConfig
from ray_xml.store import DataSet


def split_rows(data: DataSet, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """(rows of train that are fitted, rows held out for validation), both int64 ascending."""
    total = data.split("train").num_documents
    held = validation_rows(total, config.training.validation, seed=config.training.seed)
    return np.setdiff1d(np.arange(total), held, assume_unique=True), held


def metric_sums(data: DataSet, expected: DataSetConfig) -> MetricSums:
    """Empty metric sums with the data set's propensities, from all of train's label counts."""
    train = data.split("train")
    if expected.propensity_a is not None and expected.propensity_b is not None:
        a, b = expected.propensity_a, expected.propensity_b
    else:
        a, b = propensity_constants(expected.name or data.meta.name)
    counts = train.labels.column_counts()
    return MetricSums(1.0 / propensities(counts, train.num_documents, a, b), counts)
