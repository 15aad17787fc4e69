"""Holds ``ray-xml plan`` against real runs: planned and measured memory, by role and in total.

    python benchmarks/plan_check.py [--only small,wide,widest] [--work FOLDER] [--json FILE]

Three runs on made data, each ``ray-xml train`` as a process tree that is watched, and what the
plan says of it for one node, this machine. Measured are proportional set sizes: the largest that
any process of a role had, and the largest sum over all processes at one moment. The exit status is
1 if a sum, or a run's bytes sent a step, is off by more than 20 % or 2 %.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import process_tree
from watched import watched

from ray_xml.config import load_config
from ray_xml.plan import Nodes, Plan, plan
from ray_xml.plan_counts import Counts
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
MEMORY_TOLERANCE, TRAFFIC_TOLERANCE = 0.20, 0.02
ROLES = {"driver": "root", "worker": "ray::RayTrainWorker", "label shard": ":LabelShard"}


@dataclass(frozen=True)
class Case:
    """A data set to make, and a config to train on it."""

    synth: tuple[str, ...]
    config: str
    overrides: tuple[str, ...]


_A3M = ("--like=amazontitles-3m", "--documents=20000", "--test-documents=2000")
CASES = {
    "tiny": Case(
        ("--documents=1000", "--labels=400", "--features=2000"),
        "default.yaml",
        ("training.epochs=1", "encoder.dim=64", "resources.workers=1", "resources.label_shards=1"),
    ),
    "small": Case(
        ("--documents=20000", "--labels=5000", "--features=20000"),
        "default.yaml",
        ("encoder.tokens=svd", "training.epochs=2", "resources.label_shards=1"),
    ),
    "wide": Case((*_A3M, "--labels=300000"), "scaling.yaml", ()),
    "widest": Case(
        (*_A3M, "--labels=600000"),
        "scaling.yaml",
        ("classifier.optimizer=sgd", "resources.workers=1", "resources.label_shards=3"),
    ),
}
DEFAULT = ("small", "wide", "widest")


@dataclass(frozen=True)
class Check:
    """One run beside its plan.

    Attributes:
        rows: (what, planned, measured), bytes.
        off: what is off by more than it may be.
    """

    rows: list[tuple[str, float, float]]
    off: list[str]


def check(name: str, work: Path) -> Check:
    """Makes the data, plans, trains and compares."""
    case = CASES[name]
    data, run, log = work / f"data-{name}", work / f"run-{name}", work / f"{name}.log"
    if not (data / "meta.json").is_file():
        watched(["synth", str(data), *case.synth], log)
    shutil.rmtree(run, ignore_errors=True)
    given = [f"data={data}", f"run={run}", *case.overrides]
    path = ROOT / "configs" / case.config
    made = plan(
        load_config(RunConfig, path, given), Counts.of_data(DataSet.open(data)), Nodes.here()
    )
    usage = watched(["train", str(path), *given], log)
    lines = RunFolder(run).lines()
    return compare(made, usage, [line["bytes_sent_per_step"] for line in lines])


def compare(made: Plan, usage: process_tree.Usage, sent: list[float]) -> Check:
    """The plan beside what was measured; ``sent`` by epoch."""
    rows: list[tuple[str, float, float]] = []
    for role, title in ROLES.items():
        planned = max(one.peak for one in made.processes if one.role.startswith(role))
        measured = [one.largest for known, one in usage.roles.items() if title in known]
        rows.append((role, planned, max(measured, default=0)))
    ours = sum(
        one.at_peak for known, one in usage.roles.items() if any(t in known for t in ROLES.values())
    )
    others = max(one.peak for one in made.processes if one.role == "Ray")
    rows.append(("Ray's own", others, usage.peak_pss - ours))
    rows.append(("all at one moment", made.needs[0].train_together, usage.peak_pss))
    off = [rows[-1][0]] if _off(*rows[-1][1:]) > MEMORY_TOLERANCE else []
    expected = [
        made.traffic.step_first if e % made.config.training.cycle_epochs == 0 else made.traffic.step
        for e in range(len(sent))
    ]
    for epoch, (want, have) in enumerate(zip(expected, sent, strict=True)):
        rows.append((f"sent a step, epoch {epoch + 1}", want, have))
        if _off(want, have) > TRAFFIC_TOLERANCE:
            off.append(rows[-1][0])
    return Check(rows, off)


def _off(planned: float, measured: float) -> float:
    return abs(planned - measured) / measured if measured else float(planned > 0)


def table(results: dict[str, Check]) -> str:
    """The comparisons as Markdown, in MiB."""
    lines = ["| run | | planned MiB | measured MiB | off |", "|---|---|---:|---:|---:|"]
    for name, result in results.items():
        for what, planned, measured in result.rows:
            share = (planned - measured) / measured if measured else 0.0
            form = ".3f" if what.startswith("sent") else ",.0f"
            sizes = f"{planned / MIB:{form}} | {measured / MIB:{form}}"
            lines.append(f"| {name} | {what} | {sizes} | {share:+.1%} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(DEFAULT), help=f"of {', '.join(CASES)}")
    parser.add_argument("--work", help="folder for data and runs (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    work = Path(options.work or tempfile.mkdtemp(prefix="plan-check-"))
    work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Check] = {}
    try:
        for name in options.only.split(","):
            results[name] = check(name, work)
            print(table({name: results[name]}), file=sys.stderr, flush=True)
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)
    print(table(results))
    if options.json:
        tree: dict[str, Any] = {name: one.rows for name, one in results.items()}
        options.json.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    off = [f"{name}: {what}" for name, one in results.items() for what in one.off]
    print("\n".join(["off by too much:", *off]) if off else "all within bounds")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
