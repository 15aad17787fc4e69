"""What validation should find, worked out again with a predictor."""

from __future__ import annotations

import numpy as np

from ray_xml import blend
from ray_xml.predictor import Predictor
from ray_xml.refresh import true_candidates
from ray_xml.run_data import metric_sums, split_rows
from ray_xml.scoring import top_k
from ray_xml.store import DataSet


def cross_fitted(predictor: Predictor, data: DataSet) -> dict[str, float]:
    """Metrics of the held-out documents, each under the score fitted to the other half."""
    _, held = split_rows(data, predictor.config)
    train = data.split("train")
    features, labels = train.features.take(held), train.labels.take(held)
    evidence = predictor.evidence(features)
    x = evidence.features(predictor.lexical.label_counts)
    truth = true_candidates(evidence.labels, labels)
    half = np.arange(len(held)) % 2
    examples = []
    for one in (0, 1):
        part = (evidence.labels >= 0) & (half == one)[:, None]
        examples.append((x[part], truth[part]))
    first = blend.fit(examples[:1])
    second = blend.fit(examples[1:], start=first)
    log_odds = np.where(half[:, None] == 0, second.log_odds_of(x), first.log_odds_of(x))
    sums = metric_sums(data, predictor.config.dataset)
    sums.update(top_k(evidence.labels, log_odds, 5)[0], labels)
    return sums.result()
