"""Labels added to a trained model from a few example documents or a name, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ray_xml.errors import DataSetError
from ray_xml.known_labels import Drawn, KnownLabels, Shape
from ray_xml.label_examples import LabelExamples
from ray_xml.label_trial import Outcome, trial
from ray_xml.model import Model
from ray_xml.new_labels import NewLabels, with_labels
from ray_xml.run_data import fitted_documents, split_rows
from ray_xml.sparse import Csr, Subset
from ray_xml.store import DataSet


@dataclass(frozen=True)
class Added:
    """A model with labels added.

    Attributes:
        model: the new labels have the last numbers, in the order of the examples.
        outcome: how the model's own labels did in the same position.
    """

    model: Model
    outcome: Outcome


def add_labels(
    model: Model,
    data: DataSet,
    examples: LabelExamples,
    names: Csr | None = None,
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Added:
    """Adds labels.

    Args:
        model: as it was trained, or with labels added before.
        data: what it was trained on.
        examples: the new labels.
        names: [L, V] features of the names of the data set's labels; needed where a new label has
            nothing but a name.
        seed: of what is drawn for the trial.

    Raises:
        DataSetError: ``data`` is not what the model was trained on, or there are no validation
            documents to try labels on.
    """
    rows, held = split_rows(data, model.config)
    behind = sum(one.documents for one in model.added)
    behind += fitted_documents(data, model.config).texts
    fitted = model.neighbors.labels.num_rows - behind
    trained = model.added[0].first if model.added else model.num_labels
    expected = (model.num_features, trained, fitted)
    if (data.meta.num_features, data.meta.num_labels, len(rows)) != expected:
        raise DataSetError(
            f"{data.path}: {data.meta.num_features:,} features, {data.meta.num_labels:,} "
            f"labels and {len(rows):,} documents to train on, the model has {expected[0]:,}, "
            f"{expected[1]:,} and {expected[2]:,}: give that which it was trained on (--data)"
        )
    if not len(held):
        raise DataSetError(
            "the run has no validation documents to try new labels on; train with "
            "training.validation above 0"
        )
    train = data.split("train")
    known = KnownLabels(Subset(train.features, rows), Subset(train.labels, rows), names)
    among = model.labels[model.labels < trained]
    shapes = shapes_of(examples)
    rng = np.random.default_rng([seed, 0xADD])
    tried = trial(
        model,
        known,
        shapes,
        train.features.take(held),
        train.labels.take(held),
        rng,
        progress,
    )
    drawn = Drawn(examples.features, examples.labels)
    proxies, rows_of = NewLabels(model, known, among, shapes, rng).of(drawn, shapes)
    return Added(with_labels(model, drawn, proxies, rows_of, tried.blend), tried.outcome)


def shapes_of(examples: LabelExamples) -> list[Shape]:
    """What each new label comes with."""
    labels = examples.labels.to_scipy()
    named = labels[examples.named].sum(0)
    whole = labels.sum(0)
    counts = np.asarray(whole - named).ravel().astype(int)
    return [
        Shape(count, bool(name))
        for count, name in zip(counts.tolist(), np.asarray(named).ravel() > 0, strict=True)
    ]
