"""Training on Ray: the driver starts label shards and workers, and starts them again when some are
lost.

Everything that a start needs is in the run folder, so a new start goes on from the last stored
epoch whatever was lost: a worker, a shard that could not come back by itself, Ray Train's
controller, or a node with all that was on it. Only the driver's own end is beyond it: then the
same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_xml.cluster.data_places import distribute, driver_cache
from ray_xml.cluster.gauges import Gauges
from ray_xml.cluster.label_shards import LabelShards
from ray_xml.cluster.room import taken, wait_for_room, watching_for_more
from ray_xml.cluster.session import check_local, session
from ray_xml.cluster.worker_group import fit
from ray_xml.console import Watcher
from ray_xml.data_url import open_data
from ray_xml.errors import LostError, TrainingError
from ray_xml.follow import Follower, Listener
from ray_xml.run_config import RunConfig, check_data
from ray_xml.run_folder import RunFolder
from ray_xml.run_lock import driver_lock, wait_for_workers
from ray_xml.run_loggers import run_loggers
from ray_xml.run_sections import ResourcesConfig
from ray_xml.run_storage import RunStorage
from ray_xml.run_upload import Uploader
from ray_xml.run_url import check_named, for_any_node, with_local_run
from ray_xml.store import DataSet

_WORKERS_END = 120.0  # seconds: Ray ends workers whose driver is gone in a few
_PAUSES = (1.0, 15.0, 30.0)  # seconds before a new start: a lost node takes a while to be noticed


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
        ResourceError: nodes were lost, and not replaced in time.
        StorageError: ``resources.storage`` cannot be used; what was trained is in the run folder.
    """
    check_named(config)
    config = with_local_run(config)
    data = open_data(config.data, driver_cache(config.resources))
    check_data(config, data)
    check_local(config.resources)
    data.split("train")  # a file that cannot be mapped is better told here than by every shard
    config = for_any_node(config.resolved(data), data)
    folder = RunFolder(config.run)
    loggers = run_loggers(config)
    with driver_lock(folder.path):
        before = folder.begin(config)  # reads the newest checkpoint: once a start, at most
        storage = RunStorage(config.resources.storage) if config.resources.storage else None
        if storage is not None and storage.catch_up(folder, config):
            before = folder.begin(config)
        with Uploader(folder, storage) as uploader:
            if before < config.training.total:
                _train(config, data, folder, before, [uploader, *loggers])
        done = folder.epochs_done()
        return Outcome(folder.path, done, done - before, folder.lines())


def _train(
    config: RunConfig, data: DataSet, folder: RunFolder, done: int, listeners: list[Listener]
) -> None:
    """Starts as often as it takes to get from ``done`` epochs to the last one."""
    gauges = [Gauges(folder.path.name)] if config.logging.metrics else []
    with (
        session(config.resources) as where,
        Follower(folder.path, [Watcher(), *gauges, *listeners]) as follower,
    ):
        most = min(data.meta.num_labels, config.encoder.dim)
        wanted = taken(config.resources, most, where, follower.say)
        failures = 0
        while done < config.training.total:
            try:
                _start(config, wanted, data, folder, where, follower.say, first=failures == 0)
                failures, done = 0, folder.epochs_done()
            except LostError as error:
                failures = failures + 1 if folder.epochs_done() == done else 1
                if failures > config.resources.max_failures:
                    raise TrainingError(
                        f"{error}\ngave up after {failures} failures without a whole epoch in "
                        "between (resources.max_failures); the same command goes on from the last "
                        "one"
                    ) from None
                folder.progress_file.unlink(missing_ok=True)
                follower.say(f"lost: {_first_line(error)}")
                time.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])
                done = folder.begin(config)
                follower.say(f"going on after epoch {done}")


def _start(
    config: RunConfig,
    wanted: ResourcesConfig,
    data: DataSet,
    folder: RunFolder,
    where: str,
    say: Callable[[str], None],
    *,
    first: bool,
) -> None:
    """One start of shards and workers: to the run's end, or until the cluster has grown.

    Raises:
        LostError: something went that a new start can do without.
    """
    wait_for_workers(folder.path, _WORKERS_END, say)
    patience = wanted.start_patience if first else wanted.patience
    resources, shares = wait_for_room(wanted, where, patience, say)
    if resources.workers < wanted.workers:
        say(f"{resources.workers} of {wanted.workers} workers, until there is room for more")
    given = distribute(config.model_copy(update={"resources": resources}), data)
    with (
        LabelShards(given, shares) as shards,
        watching_for_more(wanted, resources.workers, where, folder.pause_file),
    ):
        fit(given, folder, shards.names(), shares)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
