"""A run whose processes are killed one after another, each at a point of its work.

One run serves many cells of the kill matrix. After each kill it has to store the epoch that it
was at (or the one after it, if that one was stored already), the same bit for bit as a run that
nobody disturbed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fault_places import GENTLE, Place, processes
from points import FOLDER
from processes import Command, wait_for
from small_runs import assert_same_checkpoint

from ray_xml import checkpoint
from ray_xml.config import dump_config
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder

HERE = Path(__file__).parent
PATIENCE = 240.0  # seconds in which a run must reach a point, and store an epoch after a kill

# Points that come before the checkpoint of the epoch that they are numbered by; at the others that
# one is on disk, and the next is to come.
_BEFORE_THEIR_CHECKPOINT = ("encode", "proxies", "index", "validation", "checkpoint")
PHASES = (*_BEFORE_THEIR_CHECKPOINT, "report", "search", "shortlist", "classifier")
_TITLES = {"worker": "RayTrainWorker", "shard": "LabelShard", "controller": "TrainController"}
KINDS = (*_TITLES, "driver", "node")
_MOST = {"RayTrainWorker": 2, "LabelShard": 3, "TrainController": 1}


@dataclass(frozen=True)
class Cell:
    """A kill: when, and of what.

    Attributes:
        phase: one of ``PHASES``; kind: one of ``KINDS``.
        number: the cycle or epoch of the phase, by the epochs done before it.
    """

    phase: str
    kind: str
    number: int

    @property
    def stored_next(self) -> int:
        """The epoch whose checkpoint comes next."""
        return self.number + (self.phase not in _BEFORE_THEIR_CHECKPOINT)


def cells_of(kind: str, phases: tuple[str, ...] = PHASES) -> list[Cell]:
    """One kill in each cycle of two epochs. The classifier's comes in a cycle's second epoch, whose
    shortlists are in a file."""
    numbers = range(2, 2 * len(phases) + 1, 2)
    return [
        Cell(phase, kind, number + (phase == "classifier"))
        for number, phase in zip(numbers, phases, strict=True)
    ]


def epochs_for(cells: list[Cell]) -> int:
    """Epochs that a run needs to get to all cells, and a cycle behind them."""
    return max((cell.number // 2 * 2 for cell in cells), default=0) + 4


@dataclass
class Verdict:
    """What came of a kill.

    Attributes:
        seconds: from the kill to the next checkpoint; None if there was none.
        faults: what was wrong; empty if nothing.
    """

    seconds: float | None = None
    faults: list[str] = field(default_factory=list)


class FaultRun:
    """Runs ``config`` to its end through all ``cells``, which come in the order of a run.

    Args:
        folder: an empty one, for files of the test; its path marks the run's processes.
        reference: the run folder of an undisturbed run of as many epochs, or more.
        say: told each verdict when it is known.
    """

    def __init__(
        self,
        config: RunConfig,
        cells: list[Cell],
        place: Place,
        folder: Path,
        reference: RunFolder,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.cells, self.place, self.reference = cells, place, reference
        resources = config.resources.model_copy(update={"address": place.address})
        self._config = config.model_copy(update={"resources": resources})
        self._epochs = self._config.training.total
        self._folder, self.run, self._say = folder, RunFolder(config.run), say
        self._commands: list[Command] = []
        (folder / "config.yaml").write_text(dump_config(self._config))
        plan = [[cell.phase, cell.number] for cell in cells]
        (folder / "plan.json").write_text(json.dumps(plan))

    def verdicts(self) -> tuple[dict[Cell, Verdict], Verdict]:
        """(what came of each cell, what was wrong in the end). Nothing that was started stays."""
        found: dict[Cell, Verdict] = {}
        try:
            self._start()
            for cell in self.cells:
                found[cell] = self._hit(cell)
                self._say(f"{cell.kind}, {cell.phase}: {found[cell]}")
                if found[cell].faults and self._command.running() and not self._stored(cell):
                    self._give_up()
                if not self._command.running() and self.run.epochs_done() < self._epochs:
                    self._start()
            return found, self._end()
        finally:
            for command in self._commands:
                command.clean_up()

    # ---- one cell ----------------------------------------------------------------------------

    def _hit(self, cell: Cell) -> Verdict:
        verdict = Verdict()
        marker = self._folder / f"{cell.phase}-{cell.number}.pid"
        wait_for(lambda: marker.exists() or not self._command.running(), PATIENCE)
        if not marker.exists():
            verdict.faults.append(f"{cell.phase} was not reached: {self._told()}")
            return verdict
        began = time.monotonic()
        try:
            self._kill(cell, int(marker.read_text()))
        except LookupError as error:
            verdict.faults.append(str(error))
        marker.with_suffix(".go").touch()
        if cell.kind == "driver":
            self._start()
        wait_for(lambda: self._stored(cell) or not self._command.running(), PATIENCE)
        if self._stored(cell):
            verdict.seconds = time.monotonic() - began
            verdict.faults += self._different(cell.stored_next)
            verdict.faults += self._crowd()
        else:
            verdict.faults.append(f"no epoch {cell.stored_next}: {self._told()}")
        try:
            self.place.mend()
        except RuntimeError as error:
            verdict.faults.append(str(error))
        return verdict

    def _kill(self, cell: Cell, paused: int) -> None:
        if cell.kind == "driver":
            self._command.kill()
        elif cell.kind == "node":
            self.place.kill_node_of(paused)
        else:
            os.kill(self._victim(_TITLES[cell.kind], paused, cell.number), signal.SIGKILL)

    def _victim(self, title: str, paused: int, number: int) -> int:
        """The process that waits if it is of the kind, else one of them, not always the same."""
        pids = [pid for pid, name in self._processes() if name.startswith(f"ray::{title}")]
        if not pids:
            raise LookupError(f"there is no {title}")
        return paused if paused in pids else pids[number // 2 % len(pids)]

    def _stored(self, cell: Cell) -> bool:
        return checkpoint.folder_of(self.run.checkpoints, cell.stored_next).exists()

    def _different(self, epoch: int) -> list[str]:
        try:
            assert_same_checkpoint(self.run, self.reference, epoch)
        except Exception as error:
            told = str(error).splitlines() or [repr(error)]
            return [f"the checkpoint of epoch {epoch} is another: {told[0][:200]}"]
        return []

    def _crowd(self) -> list[str]:
        """Processes that should have gone with those that were killed."""

        def counts() -> Counter[str]:
            names = [re.match(r"ray::(\w+)", name) for _, name in self._processes()]
            return Counter(name[1] for name in names if name)

        def too_many() -> list[str]:
            now = counts()
            return [f"{now[name]} × {name}" for name, most in _MOST.items() if now[name] > most]

        wait_for(lambda: not too_many(), 15.0)
        return too_many()

    # ---- the command -------------------------------------------------------------------------

    @property
    def _command(self) -> Command:
        return self._commands[-1]

    def _start(self) -> None:
        self._commands.append(start(self._folder))

    def _give_up(self) -> None:
        """Ends a run that does not go on, so that the cells after it get their turn."""
        self._command.kill()
        self._command.clean_up()

    def _told(self) -> str:
        """How the command ended, in one line; its whole output stays in the folder."""
        if self._command.running():
            return f"not within {PATIENCE:g} s"
        status, _, err = self._command.end()
        _, error, told = err.partition("error: ")
        return f"exit status {status}: {' '.join((error + told).split())[:300]}"

    def _processes(self) -> list[tuple[int, str]]:
        return processes(str(self._folder))

    # ---- the end -----------------------------------------------------------------------------

    def _end(self) -> Verdict:
        verdict = Verdict()
        began = time.monotonic()
        wait_for(lambda: not self._command.running(), PATIENCE)
        if self._command.running():
            verdict.faults.append("the run does not end")
            self._give_up()
        elif self._command.end()[0] != 0:
            verdict.faults.append(self._told())
        verdict.seconds = time.monotonic() - began
        verdict.faults += self._unlike_the_reference()
        left = self.place.left()
        if left:
            verdict.faults.append(f"left behind: {left}")
        return verdict

    def _unlike_the_reference(self) -> list[str]:
        faults = []
        for epoch in range(1, self._epochs + 1):
            faults += self._different(epoch)
        told = [line["epoch"] for line in self.run.lines()]
        if told != list(range(1, self._epochs + 1)):
            faults.append(f"metrics.jsonl has epochs {told}")
        ours, theirs = self.run.step_losses(), self.reference.step_losses()
        if not np.array_equal(ours, theirs[: len(theirs) * self._epochs // self._reference_epochs]):
            faults.append(f"{len(ours)} step losses differ from the undisturbed run's")
        files, expected = files_in(self.run.path), self._expected_files()
        if files != expected:
            faults.append(
                f"files too many: {sorted(files - expected)}, missing: {sorted(expected - files)}"
            )
        return faults

    @property
    def _reference_epochs(self) -> int:
        return self.reference.epochs_done()

    def _expected_files(self) -> set[str]:
        """Those of the reference, as if it had stopped after as many epochs."""
        last = (self._epochs - 1) // 2 * 2
        found = set()
        for name in files_in(self.reference.path):
            epoch = re.search(r"epoch-(\d+)", name)
            if epoch is None or int(epoch[1]) <= self._epochs:
                found.add(re.sub(r"cycle-\d+", f"cycle-{last:04d}", name))
        return found


def start(folder: Path) -> Command:
    """``ray-xml train config.yaml`` in ``folder``, with the points of its plan."""
    return Command(
        "train",
        "config.yaml",
        folder=folder,
        program=[HERE / "faulty_command.py"],
        environment={
            FOLDER: str(folder),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
            "RAY_RUNTIME_ENV_HOOK": "points.with_points",
            **GENTLE,
        },
    )


def files_in(folder: Path) -> set[str]:
    """Paths of all files and of empty folders, the hidden too; without TensorBoard's: there is one
    a start, named after its second."""
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }
    return {name for name in found if not name.startswith("tensorboard/")}
