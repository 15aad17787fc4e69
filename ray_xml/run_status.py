"""How a run stands, from its folder alone: whether it is going on, how far it is, what it keeps.

Nothing here needs Ray, torch, or the process that trains: config.yaml is read as plain values.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ray_xml.checkpoint import epochs_in, folder_of, part_sizes, read_manifest
from ray_xml.checkpoint_check import damage, verify
from ray_xml.errors import CheckpointError, ConfigError
from ray_xml.run_identity import identity
from ray_xml.run_lock import Holder, driver_of
from ray_xml.run_records import read_event, read_lines
from ray_xml.run_text import seconds_left
from ray_xml.yaml_text import parse_yaml

State = Literal["going on", "finished", "stopped"]


@dataclass(frozen=True)
class StoredEpoch:
    """A checkpoint.

    Attributes:
        epoch, bytes: which, and the size of its parts on the disk.
        predicts: whether it has proxies, so that predictors can use it.
        damage: what is wrong with it; None if nothing was found.
        aside: whether it was set aside as damaged by a run that went on.
    """

    epoch: int
    bytes: int
    predicts: bool
    damage: str | None = None
    aside: bool = False


@dataclass(frozen=True)
class Status:
    """A run at one moment.

    Attributes:
        run, data: folders. identity: of the config, see ``run_identity``.
        state: ``stopped`` if epochs are missing and nobody is at it.
        driver: who is at it.
        done, total: epochs stored, of all.
        progress: what is going on, see ``run_records.read_event``; None if nothing is.
        seconds_left: a guess, None before the first epoch.
        best: epoch, metric and its value in percent, as of the last validation.
        lines: metrics.jsonl.
        checkpoints: ascending; those set aside last.
        free: bytes on the run folder's disk.
    """

    run: str
    identity: str
    data: str
    state: State
    driver: Holder | None
    done: int
    total: int
    progress: dict[str, Any] | None
    seconds_left: float | None
    best: dict[str, Any] | None
    lines: list[dict[str, Any]]
    checkpoints: list[StoredEpoch]
    free: int

    def as_dict(self) -> dict[str, Any]:
        """As values that JSON has."""
        return asdict(self)


def status_of(folder: str | Path, *, check: bool = False) -> Status:
    """The status of the run in ``folder``.

    Args:
        check: read every byte of the checkpoints; else only sizes and manifests are looked at.

    Raises:
        CheckpointError: no run is there.
        ConfigError: its config.yaml is damaged.
    """
    run = Path(folder).resolve()
    config = _config(run)
    # Asked first: what is written before the driver goes is then seen below.
    driver = driver_of(run)
    lines = read_lines(run)
    stored = _checkpoints(run / "checkpoints", check)
    done = max((one.epoch for one in stored if one.damage is None), default=0)
    total = int(config["training"]["epochs"])
    event = read_event(run) if driver is not None else None
    state: State = "going on" if driver else "finished" if done >= total else "stopped"
    return Status(
        run=str(run),
        identity=identity(config),
        data=str(config["data"]),
        state=state,
        driver=driver,
        done=done,
        total=total,
        progress=event,
        seconds_left=seconds_left(event, lines) if event else None,
        best=_best(lines),
        lines=lines,
        checkpoints=stored,
        free=shutil.disk_usage(run).free,
    )


def _config(run: Path) -> Mapping[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        raise CheckpointError(
            f"{run}: no run here (no config.yaml); make one with "
            "`ray-xml train CONFIG data=DATA run=RUN`"
        )
    try:
        tree = parse_yaml(path.read_bytes())
        _ = tree["data"], tree["training"]["schedule"], int(tree["training"]["epochs"])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{path}: damaged, it is not what a run leaves ({error!r}); restore it, or start the "
            "run again in another folder"
        ) from None
    return dict(tree)


def _best(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    told = next((line["best"] for line in reversed(lines) if "best" in line), None)
    if not isinstance(told, dict) or not told.get("epoch"):
        return None
    epoch, metric = told["epoch"], str(told.get("metric"))
    chosen = next((line for line in lines if line["epoch"] == epoch), {})
    return {"epoch": epoch, "metric": metric, "value": chosen.get("validation", {}).get(metric)}


def _checkpoints(root: Path, check: bool) -> list[StoredEpoch]:
    found = [_stored(root, epoch, check) for epoch in epochs_in(root)]
    for path in sorted(root.glob("epoch-*.damaged")):
        number = path.name.removeprefix("epoch-").removesuffix(".damaged")
        if number.isdigit():
            found.append(StoredEpoch(int(number), _bytes_in(path), False, "set aside", aside=True))
    return [one for one in found if one.bytes >= 0]


def _stored(root: Path, epoch: int, check: bool) -> StoredEpoch:
    folder = folder_of(root, epoch)
    try:
        manifest = verify(folder) if check else read_manifest(folder)
    except CheckpointError as error:
        if not folder.exists():  # the run has gone on, and taken it away
            return StoredEpoch(epoch, -1, False)
        return StoredEpoch(epoch, _bytes_in(folder), False, damage(error))
    size = sum(part_sizes(manifest).values())
    return StoredEpoch(epoch, size, bool(manifest.get("with_proxies")))


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(OSError):  # no folder, or one that is being taken away
        for file in folder.iterdir():
            total += file.lstat().st_size
    return total
