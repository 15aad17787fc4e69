"""One run's whole configuration: the sections that the parts define, nested.

``RunConfig`` is what a file in configs/ describes. Everything is checked before a process starts:
first each value by itself, then the whole against the prepared data set (``check_data``).
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal

from pydantic import Field, model_validator

from ray_xml.classifier import ClassifierConfig
from ray_xml.config import Section
from ray_xml.encoder import EncoderConfig
from ray_xml.errors import ConfigError, DataSetError
from ray_xml.neighbors import NeighborsConfig
from ray_xml.proxies import ProxyConfig
from ray_xml.shortlist import ShortlistConfig
from ray_xml.store import DataSet
from ray_xml.store_meta import SplitMeta

RARE = 20
_MANY = 500_000  # labels beyond which classifier rows are stored lean
_MANY_INDEXED = 200_000  # labels beyond which indexed vectors are stored in float16

# Keys that may differ when a run goes on: they do not change what an epoch computes. But for
# training.epochs under schedule=linear, which falls to zero over them.
_FREE_ON_RESUME = {"data", "run", "resources", "training.epochs", "training.keep_checkpoints"}


class DataSetConfig(Section):
    """What the config expects of the data set; every field is optional.

    A prepared data set that differs from a stated number is refused: it is another data set.

    Attributes:
        name: the data set's published name; gives the propensity constants unless they are set.
        features, labels, train, test: counts: width, labels, documents before any is left out.
        propensity_a, propensity_b: constants of the propensity model (Jain et al., KDD 2016).
    """

    name: str | None = None
    features: int | None = Field(None, ge=1)
    labels: int | None = Field(None, ge=1)
    train: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)
    propensity_a: float | None = Field(None, gt=0)
    propensity_b: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _both_constants(self) -> DataSetConfig:
        if (self.propensity_a is None) != (self.propensity_b is None):
            raise ValueError("set propensity_a and propensity_b together, or neither")
        return self


class TrainingConfig(Section):
    """The epoch loop.

    Attributes:
        epochs: passes over the training documents; None is 2 where labels have few documents
            each (then words decide, not the encoder), else 10.
        batch_size: documents of the global batch, over all workers. None makes about 100 steps
            an epoch out of a small data set, but at least 32 and at most 256 documents a batch.
        rate: learning rate of the first epoch.
        schedule: ``step`` halves the rate at ``decay_epoch`` and then every
            max(5, decay_epoch / 2) epochs (the paper's); ``linear`` falls to zero over the run's
            epochs; ``constant``.
        decay_epoch: see ``schedule``.
        cycle_epochs: epochs from one refresh of proxies and shortlists to the next.
        validation: share of train set aside to fit the score and choose the best checkpoint. 0
            uses all of train: then the score is ``blend.DEFAULT`` and the last checkpoint counts
            as the best.
        metric: what "best" means: a key of the metrics, such as P@1, nDCG@5 or PSP@5.
        keep_checkpoints: how many of the newest checkpoints stay, besides the best.
        seed: of everything random.
    """

    epochs: int | None = Field(15, ge=1)
    batch_size: int | None = Field(None, ge=1)
    rate: float = Field(0.005, gt=0)
    schedule: Literal["step", "linear", "constant"] = "step"
    decay_epoch: int = Field(8, ge=1)
    cycle_epochs: int = Field(2, ge=1)
    validation: float = Field(0.03, ge=0, lt=1)
    metric: str = "nDCG@5"
    keep_checkpoints: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _metric_exists(self) -> TrainingConfig:
        kinds, ks = ("P", "nDCG", "PSP", "PSnDCG", "R"), (1, 3, 5)
        known = [f"{kind}@{k}" for kind in kinds for k in ks]
        if self.metric not in known:
            raise ValueError(f"metric {self.metric!r} is none of {', '.join(known)}")
        return self

    @property
    def total(self) -> int:
        """``epochs`` once they are known (``RunConfig.resolved``)."""
        assert self.epochs is not None, "the config was not resolved against its data"
        return self.epochs

    @property
    def batch(self) -> int:
        """``batch_size`` once it is known (``RunConfig.resolved``)."""
        assert self.batch_size is not None, "the config was not resolved against its data"
        return self.batch_size

    def rate_at(self, progress: float) -> float:
        """The learning rate after ``progress`` epochs."""
        if self.schedule == "linear":
            return self.rate * max(1.0 - progress / self.total, 0.0)
        if self.schedule == "constant" or progress < self.decay_epoch:
            return self.rate
        every = max(5, self.decay_epoch // 2)
        return float(self.rate * 0.5 ** (1 + (int(progress) - self.decay_epoch) // every))


class ResourcesConfig(Section):
    """What of the cluster a run takes.

    Attributes:
        workers: Ray Train workers.
        label_shards: Ray actors, each with one label range.
        cpus_per_worker: CPUs, and so threads, of a worker; None shares the machine's evenly.
        gpus_per_worker, gpus_per_shard: fractions allowed.
        device: ``auto`` is cuda where workers have a GPU, else cpu.
        placement: ``spread`` puts workers and label shards evenly on all nodes with CPUs (or GPUs,
            where they ask for any), ``pack`` on as few nodes as hold them.
        data: ``shared`` expects the data-set folder on every node under the same path; ``copy``
            gives each node a copy of its own, made from the driver's when the run begins.
        data_cache: folder of those copies on each node. ``{node}`` in it becomes the node's id;
            that is for nodes that share this path.
        data_checksum: of the data set that every node must find. The driver sets it.
        storage: URI such as s3://bucket/prefix, gs://…, file:///…: where the run folder's
            contents are also kept, from each epoch on, and fetched from if the run there is
            further.
        address: Ray cluster to join; None joins the cluster this process belongs to (a Ray job)
            or starts one on this machine; ``local`` always starts one.
    """

    workers: int = Field(2, ge=1)
    label_shards: int = Field(2, ge=1)
    cpus_per_worker: float | None = Field(None, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    gpus_per_shard: float = Field(0.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    placement: Literal["spread", "pack"] = "spread"
    data: Literal["shared", "copy"] = "shared"
    data_cache: str = "~/.cache/ray_xml/data"
    data_checksum: str | None = None
    storage: str | None = None
    address: str | None = None


class RunConfig(Section):
    """Everything about one run.

    Attributes:
        data: the prepared data-set folder.
        run: the run folder: made if missing, gone on with if it holds a run.
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
        if self.shortlist.storage == "auto":
            storage_of_index = "float16" if labels > _MANY_INDEXED else "float32"
            update["shortlist"] = update["shortlist"].model_copy(
                update={"storage": storage_of_index}
            )
        update["classifier"] = update["classifier"].model_copy(
            update={"negatives": negatives, "storage": storage, "optimizer": optimizer}
        )
        return self.model_copy(update=update)

    def identity(self) -> str:
        """A hash of every key that changes what an epoch computes."""
        text = json.dumps(_without_free(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Keys, with both values, that keep ``new`` from going on with a run of ``old``."""
    a = _flat(_without_free(old.model_dump(mode="json")))
    b = _flat(_without_free(new.model_dump(mode="json")))
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


def _without_free(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in tree.items() if key not in _FREE_ON_RESUME}
    linear = tree["training"]["schedule"] == "linear"
    for dotted in _FREE_ON_RESUME - ({"training.epochs"} if linear else set()):
        section, _, leaf = dotted.partition(".")
        if leaf and section in kept:
            kept[section] = {k: v for k, v in kept[section].items() if k != leaf}
    return kept


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
