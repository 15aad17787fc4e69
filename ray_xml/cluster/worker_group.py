"""One start of the Train workers: until the run is done, asked to pause, or something is lost."""

from __future__ import annotations

import shutil
import signal
import threading
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.train import FailureConfig, LoggingConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.placement_group import PlacementGroup

from ray_xml import checkpoint
from ray_xml.cluster.data_places import local_data
from ray_xml.cluster.label_shards import ShardedRanges
from ray_xml.cluster.placement import worker_strategy
from ray_xml.cluster.session import Shares
from ray_xml.config import build_config
from ray_xml.errors import LostError, RayXmlError, TrainingError
from ray_xml.exchange import Exchange
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import worker_lock
from ray_xml.training import Training


def fit(config: RunConfig, folder: RunFolder, shards: list[str], shares: Shares) -> None:
    """Starts the workers and waits for their end.

    Raises:
        LostError: a process or node is gone; starting again may help.
        RayXmlError: what a worker told; it would tell the same again.
    """
    resources = config.resources
    storage = folder.path / ".ray"
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "shards": shards,
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
            # Ray would start the group again without its label shards: the driver does it.
            failure_config=FailureConfig(max_failures=0),
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    held = _placement_groups()
    try:
        with _interrupts():
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise explain(error) from None
    except ray.exceptions.RayError as error:  # the controller died, or memory ran out
        _free(_placement_groups() - held)
        raise LostError(str(error)) from None
    finally:
        # Ray's own bookkeeping; ours is in the run folder.
        shutil.rmtree(storage, ignore_errors=True)


def _per_worker(gpus: float, shares: Shares) -> dict[str, float]:
    wanted = {"CPU": shares.cpus_per_worker}
    return wanted | {"GPU": gpus} if gpus > 0 else wanted


def _placement_groups() -> set[str]:
    """Hex ids of what this job has reserved; none within a trial, whose job is others' too."""
    if ray.util.get_current_placement_group() is not None:
        return set()
    job = ray.get_runtime_context().get_job_id()
    table = ray.util.placement_group_table().items()
    return {one for one, told in table if one.endswith(job) and told["state"] != "REMOVED"}


def _free(groups: set[str]) -> None:
    """Ray frees what a killed controller had reserved only with the driver's end."""
    for one in groups:
        number = ray.PlacementGroupID(bytes.fromhex(one))
        ray.util.remove_placement_group(PlacementGroup(number))


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


def explain(error: ray.train.TrainingFailedError) -> RayXmlError:
    """What a worker says that the run cannot do, or else Ray's account of what was lost."""
    failures = sorted(getattr(error, "worker_failures", {}).items())
    told = [one for _, one in failures if isinstance(one, RayXmlError)]
    final = next((one for one in told if not isinstance(one, LostError)), None)
    if final is not None:
        return final
    # A worker whose peer is gone fails too: that says nothing of why the peer went.
    gone = [f"worker {rank}: {one}" for rank, one in failures if not isinstance(one, RayXmlError)]
    return LostError("\n".join([*gone, str(error)]))


def train_worker(settings: dict[str, Any]) -> None:
    """What every Train worker runs.

    Raises:
        RayXmlError: whatever went wrong, since Ray hands errors to the driver without their
            traceback.
    """
    try:
        _work(settings)
    except RayXmlError:
        raise
    except Exception as error:
        raise _with_traceback(LostError if _lost(error) else TrainingError) from None


def _lost(error: Exception) -> bool:
    """Whether an error says that another process is gone, rather than what went wrong here."""
    if isinstance(error, ray.exceptions.RayTaskError):  # what a shard raised
        return False
    if isinstance(error, (ray.exceptions.RayError, torch.distributed.DistError)):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def _with_traceback(kind: type[TrainingError]) -> TrainingError:
    rank = ray.train.get_context().get_world_rank()
    return kind(f"worker {rank} failed:\n{traceback.format_exc().rstrip()}")


def _work(settings: dict[str, Any]) -> None:
    """One worker's share of the epoch loop, one report an epoch."""
    config = build_config(RunConfig, settings["config"], origin="worker")
    torch.set_num_threads(settings["shares"]["worker_threads"])
    on_gpu = config.resources.device == "cuda" or (
        config.resources.device == "auto" and torch.cuda.is_available()
    )
    device = str(ray.train.torch.get_device()) if on_gpu else "cpu"
    data = local_data(config)
    folder = RunFolder(config.run)
    with worker_lock(folder.path):
        exchange = Exchange()
        training = Training(
            config,
            data,
            folder.path,
            ShardedRanges(settings["shards"]),
            exchange,
            device=device,
            event=lambda event: checkpoint.write_json(folder.progress_file, event),
            pause=folder.pause_file.exists,
        )
        for report in training.epochs():
            if exchange.rank == 0:
                folder.append(report.line)
            ray.train.report(report.line)
