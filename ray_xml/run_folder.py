"""The run folder: what a run leaves on disk, and the rules for going on with one.

config.yaml      the resolved config
metrics.jsonl    one line an epoch
losses/          the loss of every step, one .npy an epoch
checkpoints/     see ``checkpoint``
shortlists/      the current cycle's shortlists
embeddings/      the documents' embeddings of the current cycle (while a run is going on)
neighbors.safetensors  the sparse channel, see ``lexical_file``
progress.json    what is going on right now (while a run is going on)
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ray_xml import checkpoint
from ray_xml.config import dump_config, load_config
from ray_xml.epoch_line import checked_line
from ray_xml.errors import CheckpointError, ConfigError
from ray_xml.json_text import parse_json
from ray_xml.npy_file import map_npy
from ray_xml.run_config import RunConfig, differences


class RunFolder:
    """A run folder by its path."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.progress_file = self.path / "progress.json"
        self.neighbors_file = self.path / "neighbors.safetensors"
        self.checkpoints = self.path / "checkpoints"

    def begin(self, config: RunConfig) -> int:
        """Makes the folder, or checks that ``config`` goes on with the run in it.

        Returns:
            the number of epochs done.

        Raises:
            ConfigError: the folder holds a run of another config, or something else.
        """
        if self.config_file.exists():
            changed = differences(self.config(), config)
            if changed:
                raise ConfigError(
                    f"{self.path} holds a run with other settings ({'; '.join(changed)}); "
                    "set them back to go on with it, or choose a new run folder"
                )
        elif self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; choose a new run folder")
        elif self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and holds no run; choose a new run folder")
        self.path.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(dump_config(config), encoding="utf-8")
        done = self.epochs_done()
        self._forget_after(done)
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
        except ConfigError:
            # A run of another version of ray_xml has other keys: the version says more.
            for epoch in checkpoint.epochs_in(self.checkpoints):
                checkpoint.read_manifest(checkpoint.folder_of(self.checkpoints, epoch))
            raise

    def epochs_done(self) -> int:
        epochs = checkpoint.epochs_in(self.checkpoints)
        return epochs[-1] if epochs else 0

    def model(self) -> Path:
        """The best checkpoint that can predict.

        Raises:
            CheckpointError: there is none yet.
        """
        self.config()
        usable: list[tuple[int, dict[str, Any]]] = []
        for epoch in checkpoint.epochs_in(self.checkpoints):
            manifest = checkpoint.read_manifest(checkpoint.folder_of(self.checkpoints, epoch))
            if manifest["with_proxies"]:
                usable.append((epoch, manifest))
        if not usable:
            raise CheckpointError(
                f"{self.path}: no checkpoint that can predict yet; the first one comes with the "
                "first refresh after training.cycle_epochs epochs"
            )
        best = usable[-1][1]["best_epoch"]
        epoch = best if best in dict(usable) else usable[-1][0]
        return checkpoint.folder_of(self.checkpoints, epoch)

    def append(self, line: dict[str, Any], step_losses: np.ndarray) -> None:
        """Adds an epoch's line to metrics.jsonl and its losses to losses/."""
        losses = self.path / "losses"
        losses.mkdir(exist_ok=True)
        np.save(losses / f"epoch-{line['epoch']:04d}.npy", step_losses)
        with open(self.metrics_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl.

        Raises:
            CheckpointError: one is damaged.
        """
        if not self.metrics_file.exists():
            return []
        try:
            raw = self.metrics_file.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self.metrics_file}: cannot be read ({error})") from error
        # The last line may be half written yet.
        whole = [(n, line) for n, line in enumerate(raw.split(b"\n"), 1) if line.endswith(b"}")]
        return [self._line(number, line) for number, line in whole]

    def _line(self, number: int, text: bytes) -> dict[str, Any]:
        try:
            return checked_line(parse_json(text))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self.metrics_file}:{number}: damaged ({error}); delete the line to go on without"
            ) from error

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

    def _forget_after(self, epochs: int) -> None:
        """Drops lines and losses of epochs that were reported but are not in a checkpoint."""
        kept = [line for line in self.lines() if line["epoch"] <= epochs]
        if self.metrics_file.exists():
            text = "".join(json.dumps(line) + "\n" for line in kept)
            self.metrics_file.write_text(text, encoding="utf-8")
        for file in (self.path / "losses").glob("epoch-*.npy"):
            number = file.stem.removeprefix("epoch-")
            if re.fullmatch("[0-9]{1,18}", number) and int(number) > epochs:
                file.unlink()
