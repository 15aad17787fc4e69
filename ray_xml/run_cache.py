"""What runs on the same data set compute alike, and what decides that it is alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ray_xml import __version__
from ray_xml.kept_file import KeptFile
from ray_xml.run_config import RunConfig
from ray_xml.store import DataSet


def kept_table(config: RunConfig, data: DataSet, device: torch.device) -> KeptFile | None:
    """The starting token table, before its scale; None without a cache, or where nothing is
    gained: numbers drawn at random and a given file are read as fast as a kept one.

    The number of workers leaves no trace in it (``token_table.svd_table``), the device may.
    """
    if config.resources.cache is None or config.encoder.tokens != "svd":
        return None
    key = {"dim": config.encoder.dim, "device": device.type, **_documents(config, data)}
    return KeptFile(Path(config.resources.cache), "svd", key)


def kept_lexical(config: RunConfig, data: DataSet) -> KeptFile | None:
    """The sparse channel's file; None without a cache. How many neighbours vote, and for how many
    labels, is not in it."""
    if config.resources.cache is None:
        return None
    settings = config.neighbors.model_dump(include={"terms", "label_terms", "idf"})
    key = {**settings, "left out": config.neighbors.size == 0, **_documents(config, data)}
    return KeptFile(Path(config.resources.cache), "neighbors", key)


def _documents(config: RunConfig, data: DataSet) -> dict[str, Any]:
    """What decides which documents train, besides the version that computes."""
    return {
        "ray_xml": __version__,
        "data": data.meta.checksum,
        "validation": config.training.validation,
        "seed": config.training.seed,
        "label texts": config.training.label_texts,
    }
