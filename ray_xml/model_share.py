"""One worker's share of the model that trains: columns of the token table, the residual block that
every worker holds whole, and the classifier rows of one label range."""

from __future__ import annotations

import numpy as np
import torch

from ray_xml import partition
from ray_xml.classifier import Classifier
from ray_xml.encoder import Encoder
from ray_xml.exchange import Exchange
from ray_xml.kept_file import KeptFile
from ray_xml.run_config import RunConfig
from ray_xml.sparse import Rows
from ray_xml.token_table import token_table


def new_share(
    config: RunConfig,
    features: Rows,
    label_counts: np.ndarray,
    exchange: Exchange,
    device: torch.device,
    *,
    empty: bool,
    kept: KeptFile | None = None,
) -> tuple[Encoder, Classifier]:
    """The share of ``exchange``'s rank as a run starts with it; every worker calls this.

    Args:
        features: [N, V] of the documents that train.
        label_counts: int64 [L], of those documents.
        empty: leave the token table at zero, since a checkpoint will fill it.
        kept: see ``token_table``.
    """
    seed, dim = config.training.seed, config.encoder.dim
    low, high = partition.even(dim, exchange.size)[exchange.rank]
    if empty:
        table = torch.zeros(features.num_columns, high - low, device=device)
    else:
        table = config.encoder.scale * token_table(
            config.encoder.tokens, features, dim, exchange, seed=seed, device=device, kept=kept
        )
    encoder = Encoder(config.encoder, table, exchange, seed=seed)
    label_range = partition.label_ranges(label_counts, exchange.size)[exchange.rank]
    classifier = Classifier(
        label_range,
        dim,
        label_counts[slice(*label_range)],
        features.num_rows,
        device,
        config.classifier,
        seed=seed,
    )
    return encoder, classifier
