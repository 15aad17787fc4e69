"""One run's whole configuration: the sections that the parts define, nested.

``RunConfig`` is what a file in configs/ describes. Everything is checked before a process starts:
first each value by itself, then the whole against the prepared data set (``check_data``).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ray_xml.classifier import ClassifierConfig
from ray_xml.config import Section
from ray_xml.encoder import EncoderConfig
from ray_xml.errors import CheckpointError, ConfigError, DataSetError
from ray_xml.neighbors import NeighborsConfig
from ray_xml.proxies import ProxyConfig
from ray_xml.run_identity import flat, identity, without_free
from ray_xml.run_sections import (
    DataSetConfig,
    LoggingConfig,
    ResourcesConfig,
    TrainingConfig,
)
from ray_xml.shortlist import ShortlistConfig
from ray_xml.store import DataSet
from ray_xml.store_meta import SplitMeta
from ray_xml.tune_config import TuneConfig

RARE = 20
_MANY = 500_000  # labels beyond which classifier rows are stored lean


class RunConfig(Section):
    """Everything about one run.

    Attributes:
        data: the prepared data-set folder, or its URL.
        run: the run folder, or its URL: made if missing, gone on with if it holds a run.
    """

    data: str = ""
    run: str = ""
    dataset: DataSetConfig = DataSetConfig()
    encoder: EncoderConfig = EncoderConfig()
    proxy: ProxyConfig = ProxyConfig()
    shortlist: ShortlistConfig = ShortlistConfig()
    neighbors: NeighborsConfig = NeighborsConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    training: TrainingConfig = TrainingConfig()
    resources: ResourcesConfig = ResourcesConfig()
    logging: LoggingConfig = LoggingConfig()
    tune: TuneConfig = TuneConfig()

    def resolved(self, data: DataSet) -> RunConfig:
        """The config with everything that was left open derived from the data.

        Labels are rare where they have fewer than ``RARE`` training documents on average. There
        random projections tell labels apart that a truncated SVD merges, the encoder must learn
        slowly lest it forget them, and the sparse channel does most (docs/ablations.md).
        """
        train = data.meta.splits["train"]
        return self.resolved_for(train.documents, data.meta.num_labels, train.label_pairs)

    def resolved_for(self, documents: int, labels: int, pairs: int) -> RunConfig:
        """As ``resolved``, from the numbers that it looks at: train's documents, labels, and
        (document, label) pairs."""
        rare = pairs < RARE * labels
        tokens = ("random" if rare else "svd") if self.encoder.tokens == "auto" else None
        tokens = tokens or self.encoder.tokens
        negatives = ("random" if rare else "union") if self.classifier.negatives == "auto" else None
        negatives = negatives or self.classifier.negatives
        storage, optimizer = self.classifier.storage, self.classifier.optimizer
        if storage == "auto":
            storage = "bfloat16" if labels > _MANY else "float32"
        if optimizer == "auto":
            optimizer = "adam" if storage == "float32" else "adam_row"
        few = 4096 if negatives == "random" else 2048
        batch = 2 ** max(5, min(8, int(math.log2(max(documents, 100) / 100))))
        derived: dict[str, dict[str, Any]] = {
            "encoder": {
                "token_scale": 4.0 if tokens == "random" else 1.0,
                "rate_factor": 0.05 if rare else 1.0,
            },
            "shortlist": {"size": min(100, labels)},
            "classifier": {"random_negatives": labels if labels <= 8192 else few},
            "training": {"batch_size": batch, "epochs": 2 if rare else 10},
        }
        update = {}
        for name, values in derived.items():
            section = getattr(self, name)
            missing = {key: v for key, v in values.items() if getattr(section, key) is None}
            update[name] = section.model_copy(update=missing)
        update["encoder"] = update["encoder"].model_copy(update={"tokens": tokens})
        # Decided for all labels together: the ranges must not differ in it.
        update["shortlist"] = update["shortlist"].model_copy(
            update={"storage": self.shortlist.dtype(labels).name}
        )
        update["classifier"] = update["classifier"].model_copy(
            update={"negatives": negatives, "storage": storage, "optimizer": optimizer}
        )
        return self.model_copy(update=update)

    def check_resolved(self, where: Path) -> None:
        """Refuses the config of a model in which something that prediction needs is open.

        Raises:
            CheckpointError: with ``where``.
        """
        if self.shortlist.size is None:
            raise CheckpointError(
                f"{where}: its config leaves shortlist.size open, as no run's does: it is damaged"
            )

    def identity(self) -> str:
        """A hash of every key that changes what an epoch computes."""
        return identity(self.model_dump(mode="json"))


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Keys, with both values, that keep ``new`` from going on with a run of ``old``."""
    a = flat(without_free(old.model_dump(mode="json")))
    b = flat(without_free(new.model_dump(mode="json")))
    return [f"{key}: {a.get(key)} → {b.get(key)}" for key in sorted(a) if a.get(key) != b.get(key)]


def check_data(config: RunConfig, data: DataSet) -> None:
    """Holds the config against the data set it is to train on.

    Raises:
        DataSetError: a stated count differs, or there is nothing to train on.
        ConfigError: a size in the config does not fit the data set.
    """
    meta, expected = data.meta, config.dataset
    if "train" not in meta.splits:
        raise DataSetError(f"{data.path}: no train split, only {', '.join(meta.splits)}")
    train = meta.splits["train"]
    stated = {
        "features": (expected.features, meta.num_features),
        "labels": (expected.labels, meta.num_labels),
        "train documents": (expected.train, _documents_read(train)),
    }
    if "test" in meta.splits:
        stated["test documents"] = (expected.test, _documents_read(meta.splits["test"]))
    for what, (want, have) in stated.items():
        if want is not None and want != have:
            raise DataSetError(
                f"{data.path}: {have:,} {what}, but the config is for {expected.name or 'a set'} "
                f"with {want:,}; prepare the published files or use configs/default.yaml"
            )
    if config.shortlist.size is not None and config.shortlist.size > meta.num_labels:
        raise ConfigError(
            f"shortlist.size={config.shortlist.size} is more than the data set's "
            f"{meta.num_labels} labels; lower it to at most that"
        )
    if config.shortlist.size == 0 and config.neighbors.size == 0:
        raise ConfigError(
            "shortlist.size=0 and neighbors.size=0 leave nothing to predict from; raise one"
        )
    if config.shortlist.size == 0 and config.resolved(data).classifier.uses_shortlists(
        meta.num_labels
    ):
        raise ConfigError(
            f"shortlist.size=0, but classifier.negatives={config.classifier.negatives} trains on "
            "shortlists; raise shortlist.size or set classifier.negatives=random"
        )
    parts = max(config.resources.workers, config.resources.label_shards)
    if parts > meta.num_labels:
        raise ConfigError(
            f"{parts} workers or label shards, but only {meta.num_labels} labels to share; "
            "lower resources.workers and resources.label_shards"
        )
    if config.encoder.dim < config.resources.workers:
        raise ConfigError(
            f"encoder.dim={config.encoder.dim} is less than resources.workers="
            f"{config.resources.workers}; each worker holds at least one column"
        )
    if train.documents < 2:
        raise DataSetError(f"{data.path}: {train.documents} training documents; nothing to learn")
    if train.documents == round(train.documents * config.training.validation):
        raise ConfigError(
            f"training.validation={config.training.validation} sets all {train.documents} "
            "training documents aside; lower it"
        )


def _documents_read(split: SplitMeta) -> int:
    """Documents of the source file, those left out included."""
    return split.documents + split.left_out_no_features + split.left_out_no_labels
