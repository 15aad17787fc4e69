"""Training on Ray: the driver starts label shards and a Train worker group, and watches them."""

from __future__ import annotations

import shutil
import signal
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, LoggingConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from ray_xml import checkpoint
from ray_xml.cluster.data_places import distribute, local_data
from ray_xml.cluster.label_shards import LabelShards, ShardedRanges, ShardNames
from ray_xml.cluster.placement import worker_strategy
from ray_xml.cluster.session import Shares, check_local, session
from ray_xml.config import build_config
from ray_xml.console import Watcher
from ray_xml.errors import ConfigError, RayXmlError, TrainingError
from ray_xml.exchange import Exchange
from ray_xml.run_config import RunConfig, check_data
from ray_xml.run_folder import RunFolder
from ray_xml.run_storage import RunStorage
from ray_xml.run_upload import Uploader
from ray_xml.store import DataSet
from ray_xml.training import Training


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        folder: the run folder.
        epochs: epochs done in all; trained: epochs done by this call.
        lines: metrics.jsonl.
    """

    folder: Path
    epochs: int
    trained: int
    lines: list[dict[str, Any]]


def train(config: RunConfig) -> Outcome:
    """Runs ``config`` to its last epoch, from wherever its run folder stands.

    Raises:
        ConfigError, DataSetError, ResourceError, CheckpointError: before any process starts.
        DiskError: the run folder takes no more; what is stored in it is whole.
        TrainingError: a worker or a shard failed; its own traceback is in the message.
        StorageError: ``resources.storage`` cannot be used; what was trained is in the run folder.
    """
    for key, value in (("data", config.data), ("run", config.run)):
        if not value:
            raise ConfigError(f"{key} is not set; add {key}=FOLDER")
    data = DataSet.open(config.data)
    check_data(config, data)
    check_local(config.resources)
    data.split("train")  # a file that cannot be mapped is better told here than by every shard
    # Workers run elsewhere: paths must not depend on where the driver was started.
    config = config.resolved(data).model_copy(
        update={"data": str(data.path.resolve()), "run": str(Path(config.run).resolve())}
    )
    folder = RunFolder(config.run)
    before = folder.begin(config)
    storage = RunStorage(config.resources.storage) if config.resources.storage else None
    if storage is not None and storage.catch_up(folder, config):
        before = folder.begin(config)
    with Uploader(folder, storage):
        if before < config.training.total:
            _train(config, data, folder)
    done = folder.epochs_done()
    return Outcome(folder.path, done, done - before, folder.lines())


def _train(config: RunConfig, data: DataSet, folder: RunFolder) -> None:
    with session(config.resources) as shares:
        given = distribute(config, data)
        with LabelShards(given, shares) as shards, Watcher(folder):
            _fit(given, folder, shards.names(), shares)


def _fit(config: RunConfig, folder: RunFolder, shards: ShardNames, shares: Shares) -> None:
    resources = config.resources
    storage = folder.path / ".ray"
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "shards": asdict(shards),
            "shares": asdict(shares),
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=_per_worker(resources.gpus_per_worker, shares),
            placement_strategy=worker_strategy(resources),
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # typed as Train V1's
            name=f"train-{uuid.uuid4().hex[:12]}",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        with _interrupts():
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _explain(error) from None
    except ray.exceptions.RayError as error:  # such as Ray's own account of a full memory
        raise TrainingError(str(error)) from None
    finally:
        # Ray's own bookkeeping; ours is in the run folder.
        shutil.rmtree(storage, ignore_errors=True)


def _per_worker(gpus: float, shares: Shares) -> dict[str, float]:
    wanted = {"CPU": shares.cpus_per_worker}
    return wanted | {"GPU": gpus} if gpus > 0 else wanted


@contextmanager
def _interrupts() -> Iterator[None]:
    """Ctrl-C as everywhere else: Ray Train answers it by an abort and SystemExit, and its handler
    stays after the run. SIGTERM, which stops a Ray job, ends the same way."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _explain(error: ray.train.TrainingFailedError) -> RayXmlError:
    """The first worker's own error, or Ray's account of what ended the workers."""
    failures = sorted(getattr(error, "worker_failures", {}).items())
    told = [one for _, one in failures if isinstance(one, RayXmlError)]
    # A worker whose peer is gone fails in gloo: that says nothing of why the peer went.
    return next((one for one in told if "gloo" not in str(one)), TrainingError(str(error)))


def train_worker(settings: dict[str, Any]) -> None:
    """What every Train worker runs."""
    try:
        _work(settings)
    except RayXmlError:
        raise
    except Exception:
        # Ray hands an error to the driver without its traceback.
        rank = ray.train.get_context().get_world_rank()
        text = traceback.format_exc().rstrip()
        raise TrainingError(f"worker {rank} failed:\n{text}") from None


def _work(settings: dict[str, Any]) -> None:
    """One worker's share of the epoch loop, one report an epoch."""
    config = build_config(RunConfig, settings["config"], origin="worker")
    shards = ShardNames(
        settings["shards"]["names"], [tuple(one) for one in settings["shards"]["ranges"]]
    )
    torch.set_num_threads(settings["shares"]["worker_threads"])
    on_gpu = config.resources.device == "cuda" or (
        config.resources.device == "auto" and torch.cuda.is_available()
    )
    device = str(ray.train.torch.get_device()) if on_gpu else "cpu"
    folder = RunFolder(config.run)
    exchange = Exchange()
    training = Training(
        config,
        local_data(config),
        folder.path,
        ShardedRanges(shards),
        exchange,
        device=device,
        event=lambda event: checkpoint.write_json(folder.progress_file, event),
    )
    for report in training.epochs():
        if exchange.rank == 0:
            folder.append(report.line)
        ray.train.report(report.line)
