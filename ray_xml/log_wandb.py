"""A run on Weights & Biases: its config, and the numbers of its epochs, a step an epoch.

RUN/loggers/wandb.json remembers which run it is there and which epoch it was told last, so that a
run that goes on stays one there. Files that wandb keeps lie in RUN/loggers/wandb.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from ray_xml.disk import replace_text
from ray_xml.errors import ConfigError
from ray_xml.follow import Line, Listener
from ray_xml.json_text import parse_json
from ray_xml.run_records import scalars


class WandbLogger(Listener):
    """Tells ``project``; ``config`` is the run's, as plain values.

    Raises:
        ConfigError: nobody is logged in.
    """

    name = "Weights & Biases"

    def __init__(self, project: str, run: Path, config: Mapping[str, Any]) -> None:
        self._project, self._run, self._config = project, run, config
        self._file = run / "loggers" / "wandb.json"
        self._told = 0
        self._id = ""
        self._there: Any = None
        # The console is ours, and a question on it would wait for ever.
        wandb.setup(wandb.Settings(silent=True))
        try:
            wandb.login()
        except wandb.errors.UsageError as error:
            raise ConfigError(
                f"logging.wandb={project}, but nobody is logged in ({error}); do so, set "
                "WANDB_API_KEY or WANDB_MODE=offline, or set logging.wandb=null"
            ) from error

    def begin(self, lines: Sequence[Line]) -> None:
        self._remember()
        self._there = wandb.init(
            project=self._project,
            id=self._id,
            name=self._run.name,
            resume="allow",
            dir=str(self._file.parent),
            config=dict(self._config),
            settings=wandb.Settings(console="off", silent=True),
        )
        for line in lines:
            self.epoch(line)

    def epoch(self, line: Line) -> None:
        if line["epoch"] <= self._told:  # wandb takes no step back; it was the same training
            return
        self._there.log(scalars(line), step=line["epoch"], commit=True)
        self._told = line["epoch"]
        self._note()

    def end(self, status: str) -> None:
        if self._there is not None:
            self._there.finish(exit_code=0 if status == "finished" else 1)

    def _remember(self) -> None:
        self._file.parent.mkdir(exist_ok=True)
        try:
            kept = parse_json(self._file.read_bytes())
            if kept["project"] != self._project:
                raise ValueError
            self._id, self._told = str(kept["id"]), int(kept["epoch"])
        except (OSError, ValueError, KeyError, TypeError):
            self._id, self._told = uuid.uuid4().hex[:16], 0
            self._note()

    def _note(self) -> None:
        kept = {"project": self._project, "id": self._id, "epoch": self._told}
        replace_text(self._file, json.dumps(kept) + "\n")
