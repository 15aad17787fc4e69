"""Sections of a run's configuration that belong to no part of the method: what is expected of the
data set, the epoch loop, what of the cluster a run takes, and who is told of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ray_xml.config import Section


class DataSetConfig(Section):
    """What the config expects of the data set; every field is optional.

    A prepared data set that differs from a stated number is refused: it is another data set.

    Attributes:
        name: the data set's published name; gives the propensity constants unless they are set.
        features: the number of features.
        labels: the number of labels.
        train: documents of train, before any is left out.
        test: likewise of test.
        propensity_a: the constant A of the propensity model (Jain et al., KDD 2016); None is that
            of the named set, else 0.55. Set both constants or neither.
        propensity_b: the constant B, likewise, else 1.5.
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
            uses all of train: then the score has fixed weights and the last checkpoint counts as
            the best.
        metric: what "best" means: a key of the metrics, such as P@1, nDCG@5 or PSP@5.
        keep_checkpoints: how many of the newest checkpoints stay, besides the best.
        seed: of everything random.
        label_texts: train on the labels' own texts besides, where the data set has them.
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
    label_texts: bool = True

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
        workers: Ray Train workers; 0 takes what the cluster has when the run is started
            (docs/nodes.md). A search gives each trial one.
        min_workers: go on with as few of them when nodes are lost, and take the others back, at the
            end of an epoch, when there is room again; None keeps to ``workers``.
        patience: seconds that a run which lost nodes waits for room.
        start_patience: likewise before the first start, for clusters that grow when asked: the
            cluster's autoscaler is asked for what is missing either way.
        max_failures: how often in a row a run starts again after it lost a process or a node,
            without a whole epoch in between; beyond that it ends with an error.
        label_shards: Ray actors, each with one label range; 0 is as many as workers.
        cpus_per_worker: CPUs, and so threads, of a worker; None shares the machine's evenly.
        gpus_per_worker: GPUs of a worker; fractions are allowed. Where ``workers`` is 0 and the
            cluster has GPUs, a half.
        gpus_per_shard: GPUs of a label shard, likewise.
        device: ``auto`` is cuda where workers have a GPU, else cpu.
        placement: ``spread`` puts workers and label shards evenly on all nodes with CPUs (or GPUs,
            where they ask for any), ``pack`` on as few nodes as hold them.
        data: ``shared`` expects the data-set folder on every node under the same path; ``copy``
            gives each node a copy of its own, made from the driver's when the run begins.
        data_cache: folder of those copies on each node. ``{node}`` in it becomes the node's id;
            that is for nodes that share this path.
        data_checksum: of the data set that every node must find. The driver sets it.
        cache: folder on a path that all nodes share, where runs keep for each other what depends on
            the data set alone: the SVD that token tables start from, and the sparse channel. None
            computes it in each run.
        storage: URI such as s3://bucket/prefix, gs://…, file:///…: where the run folder's
            contents are also kept, from each epoch on, and fetched from if the run there is
            further.
        address: Ray cluster to join; None joins the cluster this process belongs to (a Ray job)
            or starts one on this machine; ``local`` always starts one.
    """

    workers: int = Field(0, ge=0)
    min_workers: int | None = Field(None, ge=1)
    patience: float = Field(1800.0, ge=0)
    start_patience: float = Field(0.0, ge=0)
    max_failures: int = Field(3, ge=0)
    label_shards: int = Field(0, ge=0)
    cpus_per_worker: float | None = Field(None, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    gpus_per_shard: float = Field(0.0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    placement: Literal["spread", "pack"] = "spread"
    data: Literal["shared", "copy"] = "shared"
    data_cache: str = "~/.cache/ray_xml/data"
    data_checksum: str | None = None
    cache: str | None = None
    storage: str | None = None
    address: str | None = None

    @model_validator(mode="after")
    def _not_more_than_all(self) -> ResourcesConfig:
        if self.workers > 0 and self.fewest_workers > self.workers:
            raise ValueError(f"min_workers={self.min_workers} is more than workers={self.workers}")
        return self

    @property
    def fewest_workers(self) -> int:
        """The fewest that a run goes on with."""
        return self.workers if self.min_workers is None else self.min_workers


class LoggingConfig(Section):
    """Who is told of a run while it goes on, besides its own files (docs/observability.md).

    Attributes:
        tensorboard: write TensorBoard's files to RUN/tensorboard.
        metrics: show the run's gauges in Ray's metrics: dashboard, Prometheus, Grafana.
        mlflow: tracking URI of an MLflow server or store, such as http://host:5000.
        mlflow_experiment: name of the experiment there.
        wandb: Weights & Biases project.
    """

    tensorboard: bool = True
    metrics: bool = True
    mlflow: str | None = None
    mlflow_experiment: str = "ray_xml"
    wandb: str | None = None
