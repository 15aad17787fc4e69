"""Which documents of train are fitted and which are held out for validation."""

from __future__ import annotations

import numpy as np

from ray_xml.partition import validation_rows
from ray_xml.run_config import RunConfig
from ray_xml.store import DataSet


def split_rows(data: DataSet, config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """(rows of train that are fitted, rows held out for validation), both int64 ascending."""
    total = data.split("train").num_documents
    held = validation_rows(total, config.training.validation, seed=config.training.seed)
    return np.setdiff1d(np.arange(total), held, assume_unique=True), held
