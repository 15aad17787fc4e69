"""ray_xml beside its peers: accuracy, time, memory and model size on prepared data sets.

    python benchmarks/peers.py DATA … [--threads 2] [--systems ray_xml,pecos] [key=value …]

Each system trains, saves, is loaded in a fresh process, and predicts the test split; all of them
are scored by ``ray_xml.metrics`` with the propensities of train. They run one at a time, on the
same CPUs. Every peer runs in a virtual environment of its own, made under ``--cache`` at the first
run. ``key=value``s are settings of ray_xml's training.

Prints Markdown, and writes it with everything behind it to ``peers.md`` and ``peers.json`` under
``--out`` after each system.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import process_tree
import tables
from environments import InstallError
from exchange_files import METRICS, ExchangeError, has_unit_length
from measure import FailedError, Plan, Row, machine, measure, write_json
from systems import REPOSITORY, SYSTEMS, System

from ray_xml.errors import RayXmlError
from ray_xml.run_config import check_data
from ray_xml.store import DataSet

_HOW_TO_PREPARE = """there is no data set to compare on. Prepare one, for example
    ray-xml prepare xc train.txt.xz test.txt.xz data/eurlex-4.3k --name EURLex-4.3K
and give its folder: python benchmarks/peers.py data/eurlex-4.3k
`make bench` takes data/{bibtex,eurlex-4.3k,tibkat-gnd,wordnet-114k}, whichever there are, or
DATA="folder folder…"."""


class UsageError(Exception):
    """The call cannot be carried out as it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status: 1 if a system could not be measured."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        plan, chosen = _plan(options), _chosen(options.systems)
        data_sets = [_open(folder, plan) for folder in _folders(options.arguments)]
        _keep_to_cpus(plan.threads)
        options.out.mkdir(parents=True, exist_ok=True)
        results = _compare(data_sets, chosen, plan, options.out)
    except (UsageError, RayXmlError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is in {options.out}", file=sys.stderr)
        return 130
    print(tables.report(results, METRICS))
    return int(any("failed" in row for one in results["data_sets"] for row in one["rows"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "arguments", nargs="*", metavar="DATA | key=value",
        help="prepared data-set folders; settings of ray_xml's training",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="of every system (default: 2)")
    names = ",".join(system.name for system in SYSTEMS)
    parser.add_argument("--systems", default=names, help=f"which ones (default: {names})")
    parser.add_argument("--config", type=Path, help="ray_xml's config (default: the data set's)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".bench",
                        help="environments, data for the peers, models, logs")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3, help="batch predictions (default: 3)")
    parser.add_argument("--singles", type=int, default=500,
                        help="documents asked one by one (default: 500)")  # fmt: skip
    return parser


def _folders(arguments: Sequence[str]) -> list[str]:
    folders = [one for one in arguments if "=" not in one]
    if not folders:
        raise UsageError(_HOW_TO_PREPARE)
    return folders


def _plan(options: argparse.Namespace) -> Plan:
    for name in ("threads", "repeats", "singles"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1")
    if not process_tree.available():
        raise UsageError("memory and CPU time are read from /proc, so this needs Linux")
    return Plan(
        cache=options.cache.absolute(),
        threads=options.threads,
        repeats=options.repeats,
        singles=options.singles,
        config=options.config,
        overrides=[one for one in options.arguments if "=" in one],
    )


def _chosen(names: str) -> list[System]:
    known = {system.name: system for system in SYSTEMS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"--systems: there is no {name!r}, only {', '.join(known)}")
    if not wanted:
        raise UsageError(f"--systems names none of {', '.join(known)}")
    return [known[name] for name in wanted]


def _open(folder: str, plan: Plan) -> DataSet:
    """A data set that everything can run on; better found out now than after an hour."""
    data = DataSet.open(folder)
    if not data.split("train").labels.nnz or not data.split("test").labels.nnz:
        raise UsageError(f"{folder}: both train and test need labels")
    check_data(plan.config_for(data)[1], data)
    return data


def _keep_to_cpus(threads: int) -> None:
    """Binds this process, and so every system, to as many CPUs as there are threads.

    A library that starts more threads than it was told to then gains nothing by it.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < threads:
        raise UsageError(f"--threads {threads}: this process may use {len(allowed)} CPUs only")
    os.sched_setaffinity(0, allowed[:threads])


def _compare(
    data_sets: Sequence[DataSet], chosen: Sequence[System], plan: Plan, out: Path
) -> dict[str, Any]:
    results: dict[str, Any] = {
        "command": [sys.executable, *sys.argv],
        "machine": machine(),
        "threads": plan.threads,
        "repeats": plan.repeats,
        "singles": plan.singles,
        "memory": process_tree.memory_measure(),
        "data_sets": [],
    }
    for data in data_sets:
        one = _described(data)
        results["data_sets"].append(one)
        for system in chosen:
            if system.only_unscaled and has_unit_length(data):
                continue
            print(f"{data.meta.name}: {system.name} …", file=sys.stderr, flush=True)
            one["rows"].append(_row(system, data, plan))
            write_json(out / "peers.json", results)
            (out / "peers.md").write_text(tables.report(results, METRICS), encoding="utf-8")
    return results


def _described(data: DataSet) -> dict[str, Any]:
    return {
        "name": data.meta.name,
        "folder": str(data.path),
        "checksum": data.meta.checksum,
        "train": data.split("train").num_documents,
        "test": data.split("test").num_documents,
        "features": data.meta.num_features,
        "labels": data.meta.num_labels,
        "rows": [],
    }


def _row(system: System, data: DataSet, plan: Plan) -> Row:
    try:
        return measure(system, data, plan)
    except InstallError as error:
        failed = f"not installed: {error}"
    except (FailedError, ExchangeError, RayXmlError) as error:
        failed = f"failed: {error}"
    print(f"  {failed}", file=sys.stderr, flush=True)
    return {"system": system.name, "settings": system.settings, "failed": failed}


if __name__ == "__main__":
    sys.exit(main())
