"""Runs on Ray for the tests: their config, what they leave, and how to compare two of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from made import make_config
from safetensors.numpy import load_file

from ray_xml import checkpoint
from ray_xml.cluster.trainer import Outcome, train
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet


@dataclass(frozen=True)
class Run:
    """A run, and copies of the shortlists of all its cycles by cycle."""

    outcome: Outcome
    shortlists: dict[int, bytes]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.outcome.folder)


def both_config(
    data: DataSet, folder: Path, *, workers: int, shards: int, epochs: int, keep: int = 1
) -> RunConfig:
    """Shortlists from proxies and classifier rows, 17 steps an epoch, two epochs a cycle."""
    config = make_config(
        encoder={"dropout": 0.3},
        shortlist={"source": "both", "size": 8},
        training={
            "epochs": epochs, "batch_size": 32, "cycle_epochs": 2, "keep_checkpoints": keep,
        },
        resources={"workers": workers, "label_shards": shards},
    )  # fmt: skip
    return config.model_copy(update={"data": str(data.path), "run": str(folder)})


def start(config: RunConfig) -> Run:
    """Trains in this process's Ray, keeping shortlists that the run itself removes."""
    kept = Path(config.run).with_name("kept-shortlists")
    kept.mkdir(exist_ok=True)
    stop = threading.Event()

    def keep() -> None:
        # A second name for the same file: it stays, whole, when the run removes the first.
        while not stop.wait(0.02):
            for file in Path(config.run).glob("shortlists/*.i32"):
                if not (kept / file.name).exists():
                    os.link(file, kept / file.name)

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        outcome = train(config)
    finally:
        stop.set()
        thread.join()
    files = sorted(kept.glob("*.i32"))
    return Run(
        outcome, {int(file.stem.removeprefix("cycle-")): file.read_bytes() for file in files}
    )


def tensors(folder: RunFolder, epoch: int) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint, put together over its parts where they are ranges."""
    found: dict[str, list[np.ndarray]] = {}
    for file in sorted(checkpoint.folder_of(folder.checkpoints, epoch).glob("*.safetensors")):
        kind = file.stem.rpartition("-")[0]
        for name, value in load_file(file).items():
            found.setdefault(f"{kind}.{name}", []).append(value)
    return {
        name: np.concatenate(parts, axis=1 if "tokens." in name else 0)
        for name, parts in found.items()
    }


def assert_same_checkpoint(left: RunFolder, right: RunFolder, epoch: int) -> None:
    """Bit for bit, in every tensor, and in what the manifests say of the model."""
    ours, theirs = tensors(left, epoch), tensors(right, epoch)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 15
    different = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    assert different == []
    first, second = (
        checkpoint.read_manifest(checkpoint.folder_of(one.checkpoints, epoch))
        for one in (left, right)
    )
    for key in ("blend", "best_epoch", "best_value", "validation", "adam_steps", "with_proxies"):
        assert first[key] == second[key], key


def no_shard_stays(before: Iterable[str] = ()) -> bool:
    """Whether shards other than ``before`` are gone within ten seconds: an end takes a moment."""
    for _ in range(100):
        if not set(shard_actors()) - set(before):
            return True
        time.sleep(0.1)
    return False


def shard_actors() -> list[str]:
    """Label shards that are up anywhere on the cluster."""
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in named if "shard" in actor["name"]]
