"""The kill matrix: SIGKILL to each kind of process in each phase of a run.

    python tests/faults/matrix.py [--kinds "worker;shard"] [--phases encode,search] [--keep FOLDER]

A second call with the same --keep takes the undisturbed run from there: not after a change to the
code.

A cell shows the seconds from the kill to the next checkpoint, or what went wrong. The last row
says whether the finished run is the undisturbed one in every byte that matters, with no process,
actor or file left over.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from fault_places import OwnCluster, Place, joined
from fault_runs import KINDS, PATIENCE, PHASES, Cell, FaultRun, Verdict, cells_of, epochs_for, start
from made import make_data_set
from small_runs import both_config

from ray_xml.config import dump_config
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

JOINED = "driver, joined"  # the driver's death on a cluster that stays
COLUMNS = (*KINDS[:4], JOINED, "node")
# CPUs of the nodes, the head first, where there is a cluster before the run. A node more than the
# workers need: they have somewhere to go when one dies.
NODES = {JOINED: [2], "node": [0, 1, 1, 1]}


@dataclass
class Column:
    """What came of all kills of one kind."""

    cells: dict[str, Verdict] = field(default_factory=dict)
    end: Verdict = field(default_factory=Verdict)
    seconds: float = 0.0


def config_for(data: DataSet, run: Path, epochs: int) -> RunConfig:
    return both_config(data, run, workers=2, shards=3, epochs=epochs, keep=epochs)


def undisturbed(data: DataSet, folder: Path, epochs: int) -> RunFolder:
    """The run that all others must equal, unless it is there already."""
    config = config_for(data, folder / "run", epochs)
    if RunFolder(config.run).epochs_done() >= epochs:
        return RunFolder(config.run)
    folder.mkdir()
    resources = config.resources.model_copy(update={"address": "local"})
    config = config.model_copy(update={"resources": resources})
    (folder / "config.yaml").write_text(dump_config(config))
    (folder / "plan.json").write_text("[]")
    command = start(folder)
    try:
        status, out, err = command.end(4 * PATIENCE)
        if status != 0:
            raise SystemExit(f"the undisturbed run failed:\n{out}\n{err}")
    finally:
        command.clean_up()
    return RunFolder(config.run)


@contextmanager
def place_for(column: str, folder: Path) -> Iterator[Place]:
    if column in NODES:
        with joined(str(folder), NODES[column]) as place:
            yield place
    else:
        yield OwnCluster(str(folder))


def column_of(
    name: str, phases: tuple[str, ...], data: DataSet, folder: Path, reference: RunFolder
) -> Column:
    """Runs through the cells of one column."""
    began = time.monotonic()
    cells: list[Cell] = cells_of(name.partition(",")[0], phases)
    config = config_for(data, folder / "run", epochs_for(cells))
    with place_for(name, folder) as place:
        found, end = FaultRun(config, cells, place, folder, reference, _say).verdicts()
    told = {cell.phase: verdict for cell, verdict in found.items()}
    return Column(told, end, time.monotonic() - began)


def table(columns: dict[str, Column], phases: tuple[str, ...]) -> str:
    """The matrix, and below it what went wrong where."""
    width = max(map(len, (*PHASES, "whole run")))
    lines = [" " * width + "".join(f"{name:>16}" for name in columns)]
    for phase in phases:
        shown = [_shown(column.cells[phase]) for column in columns.values()]
        lines.append(phase.ljust(width) + "".join(f"{one:>16}" for one in shown))
    ends = ["ok" if not column.end.faults else "RED" for column in columns.values()]
    lines.append("whole run".ljust(width) + "".join(f"{one:>16}" for one in ends))
    times = [f"{column.seconds:.0f} s" for column in columns.values()]
    lines.append("in all".ljust(width) + "".join(f"{one:>16}" for one in times))
    for name, column in columns.items():
        for where, verdict in (*column.cells.items(), ("whole run", column.end)):
            lines += [f"{name}, {where}: {fault}" for fault in verdict.faults]
    return "\n".join(lines)


def _shown(verdict: Verdict) -> str:
    if verdict.faults or verdict.seconds is None:
        return "RED"
    return f"{verdict.seconds:.1f} s"


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default=";".join(COLUMNS), help="columns, split by ';'")
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("--keep", type=Path, help="a folder for all files of the runs")
    options = parser.parse_args()
    os.environ.pop("RAY_ADDRESS", None)
    chosen = tuple(options.phases.split(","))
    phases = tuple(phase for phase in PHASES if phase in chosen)
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.keep or Path(temporary)).resolve()
        known = (root / "data").exists()
        data = DataSet.open(root / "data") if known else make_data_set(root / "data")
        epochs = epochs_for(cells_of("worker", phases))
        reference = undisturbed(data, root / "undisturbed", epochs)
        columns: dict[str, Column] = {}
        for name in options.kinds.split(";"):
            folder = Path(tempfile.mkdtemp(prefix=name.replace(", ", "-") + "-", dir=root))
            columns[name] = column_of(name, phases, data, folder, reference)
            _say(f"{name}, whole run: {columns[name].end}")
    print(table(columns, phases))
    bad = sum(
        bool(one.faults)
        for column in columns.values()
        for one in (*column.cells.values(), column.end)
    )
    print(f"{bad} red" if bad else "all green")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
