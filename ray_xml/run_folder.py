"""The run folder: what a run leaves on disk, and the rules for going on with one.

config.yaml      the resolved config
metrics.jsonl    one line an epoch
losses/          the loss of every step, one .npy an epoch
checkpoints/     see ``checkpoint``
shortlists/      the current cycle's shortlists
embeddings/      what label ranges read in the current cycle, see ``range_state`` (while a run is
                 going on)
neighbors.safetensors  the sparse channel, see ``lexical_file``
probability.json what scores are worth, see ``calibrate`` (once that was asked for)
progress.json    what is going on right now (while a run is going on)
tensorboard/ loggers/  what ``run_loggers`` writes
.lock .workers   who is at work, see ``run_lock``; .pause asks workers to stop after an epoch
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ray_xml import __version__, checkpoint
from ray_xml.checkpoint_check import damage, newest_good, set_aside, verify
from ray_xml.config import dump_config, load_config
from ray_xml.disk import add_line, replace_text, writing
from ray_xml.errors import CheckpointError, ConfigError, DiskError, VersionError
from ray_xml.npy_file import map_npy
from ray_xml.run_config import RunConfig, differences
from ray_xml.run_lock import DRIVER
from ray_xml.run_records import METRICS, PROGRESS, read_lines


class RunFolder:
    """A run folder by its path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / METRICS
        self.progress_file = self.path / PROGRESS
        self.pause_file = self.path / ".pause"
        self.neighbors_file = self.path / "neighbors.safetensors"
        self.probability_file = self.path / "probability.json"
        self.checkpoints = self.path / "checkpoints"

    def begin(self, config: RunConfig) -> int:
        """Makes the folder, or checks that ``config`` goes on with the run in it, and from where.

        A checkpoint that is damaged is told on stderr and set aside, so that the run goes on from
        the one before it.

        Returns:
            the number of epochs done.

        Raises:
            ConfigError: the folder holds a run of another config, or something else, or cannot be
                written. Nothing has been changed.
            VersionError: likewise, a run of another version of ray_xml.
            DiskError: the disk is full.
        """
        if self.config_file.exists():
            changed = differences(self.config(), config)
            if changed:
                self._check_version()
                raise ConfigError(
                    f"{self.path} holds a run with other settings ({'; '.join(changed)})"
                    f"{self._written_by()}; set them back to go on with it, or choose a new run "
                    "folder"
                )
        elif self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; choose a new run folder")
        elif self.path.exists() and {one.name for one in self.path.iterdir()} - {DRIVER}:
            raise ConfigError(f"{self.path} is not empty and holds no run; choose a new run folder")
        self._check_writable()
        done, damaged = newest_good(self.checkpoints)
        for epoch, error in damaged:
            aside = set_aside(self.checkpoints, epoch)
            goes_on = f"goes on from epoch {done}" if done else "starts from the beginning"
            tell(f"{damage(error)}; moved to {aside.name}, and the run {goes_on}")
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        replace_text(self.config_file, dump_config(config))
        self._set_lines(done)
        return done

    def config(self) -> RunConfig:
        """The config of the run.

        Raises:
            CheckpointError: this is no run folder, or one of another version's.
            ConfigError: its config is damaged.
        """
        if not self.config_file.is_file():
            raise CheckpointError(
                f"{self.path}: no run here (no config.yaml); make one with "
                "`ray-xml train CONFIG data=DATA run=RUN`"
            )
        try:
            return load_config(RunConfig, self.config_file)
        except ConfigError as error:
            self._check_version()
            written_by = self._written_by()
            if written_by:
                raise ConfigError(f"{error}{written_by}") from None
            raise

    def _check_version(self) -> None:
        """A run of another version of ray_xml has other keys: the version says more than they do.

        Raises:
            VersionError: a checkpoint is of another format.
        """
        for epoch in checkpoint.epochs_in(self.checkpoints):
            self._manifest(epoch)

    def _written_by(self) -> str:
        """For a message: the version that wrote the newest checkpoint, if it is not this one."""
        for epoch in reversed(checkpoint.epochs_in(self.checkpoints)):
            version = self._manifest(epoch).get("ray_xml", __version__)
            if version != __version__:
                return f"; it was made by ray_xml {version}, this is {__version__}"
        return ""

    def _manifest(self, epoch: int) -> dict[str, Any]:
        """A checkpoint's manifest, empty where it is damaged."""
        try:
            return checkpoint.read_manifest(checkpoint.folder_of(self.checkpoints, epoch))
        except VersionError:
            raise
        except CheckpointError:
            return {}

    def epochs_done(self) -> int:
        epochs = checkpoint.epochs_in(self.checkpoints)
        return epochs[-1] if epochs else 0

    def model(self) -> Path:
        """The best checkpoint that can predict and is whole.

        Where a better one is damaged, that is told on stderr.

        Raises:
            CheckpointError: there is none yet, or all are damaged.
        """
        self.config()
        usable: dict[int, dict[str, Any]] = {}
        damaged: list[CheckpointError] = []
        for epoch in reversed(checkpoint.epochs_in(self.checkpoints)):
            try:
                manifest = checkpoint.read_manifest(checkpoint.folder_of(self.checkpoints, epoch))
            except VersionError:
                raise
            except CheckpointError as error:
                damaged.append(error)
                continue
            if manifest["with_proxies"]:
                usable[epoch] = manifest
        best = next((manifest["best_epoch"] for manifest in usable.values()), None)
        for epoch in sorted(usable, key=lambda epoch: (epoch != best, -epoch)):
            folder = checkpoint.folder_of(self.checkpoints, epoch)
            try:
                verify(folder, weights_only=True)
            except CheckpointError as error:
                damaged.append(error)
                continue
            for one in damaged:
                tell(f"{damage(one)}; predicting with the checkpoint of epoch {epoch} instead")
            return folder
        if damaged:
            raise damaged[0]
        raise CheckpointError(
            f"{self.path}: no checkpoint that can predict yet; the first one comes with the "
            "first refresh after training.cycle_epochs epochs"
        )

    def save_losses(self, epoch: int, step_losses: np.ndarray) -> None:
        """Keeps the losses of an epoch's steps, float32 [steps], in losses/."""
        file = self._losses_file(epoch)
        with writing(file):
            file.parent.mkdir(exist_ok=True)
            np.save(file, step_losses)

    def _losses_file(self, epoch: int) -> Path:
        return self.path / "losses" / f"epoch-{epoch:04d}.npy"

    def append(self, line: dict[str, Any]) -> None:
        """Adds the line of an epoch that is stored to metrics.jsonl.

        Raises:
            DiskError: the disk is full. Whoever goes on with the run finds the line in its
                checkpoint.
        """
        try:
            add_line(self.metrics_file, json.dumps(line))
        except DiskError as error:
            raise DiskError(f"{error}; the checkpoint of epoch {line['epoch']} is whole") from error

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, but for one that was cut."""
        return read_lines(self.path)

    def step_losses(self) -> np.ndarray:
        """float32 [steps]: the loss of every step of the run so far.

        Raises:
            CheckpointError: a file of losses is damaged.
        """
        files = sorted((self.path / "losses").glob("epoch-*.npy"))
        parts = [np.zeros(0, np.float32)]
        for file in files:
            try:
                part = map_npy(file)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{file}: damaged ({error}); delete it") from error
            if part.ndim != 1 or part.dtype != np.float32:
                raise CheckpointError(
                    f"{file}: damaged, {part.dtype} {list(part.shape)}; delete it"
                )
            parts.append(part)
        return np.concatenate(parts)

    def _check_writable(self) -> None:
        for folder in (self.path, self.checkpoints):
            place = next(one for one in (folder, *folder.parents) if one.exists())
            try:
                with tempfile.TemporaryFile(dir=place):  # has no name: leaves no trace
                    pass
            except OSError as error:
                raise ConfigError(
                    f"{folder} cannot be written ({os.strerror(error.errno or 0)}); make it "
                    "writable, or choose another run folder"
                ) from error

    def _set_lines(self, epochs: int) -> None:
        """Lines of the epochs that are stored, and no others: drops those that were reported but
        are in no checkpoint, and takes those from checkpoints that were not written any more."""
        kept = {line["epoch"]: line for line in self.lines() if line["epoch"] <= epochs}
        for epoch in checkpoint.epochs_in(self.checkpoints):
            line = None if epoch in kept else self._manifest(epoch).get("line")
            if line is not None:
                kept[epoch] = line
        if kept or self.metrics_file.exists():
            text = "".join(json.dumps(kept[epoch]) + "\n" for epoch in sorted(kept))
            replace_text(self.metrics_file, text)
        for file in (self.path / "losses").glob("epoch-*.npy"):
            number = file.stem.removeprefix("epoch-")
            if re.fullmatch("[0-9]{1,18}", number) and int(number) > epochs:
                file.unlink()


def tell(text: str) -> None:
    """Says on stderr what a user should hear of a run folder though work goes on."""
    print(f"warning: {text}", file=sys.stderr, flush=True)
