"""How a run grows with labels, documents and workers: time, memory and traffic, measured.

    python benchmarks/scaling.py --labels 100000,2800000 --documents 20000 --dim 300 --workers 2 \
        --json FILE

For every combination of the numbers given: synthetic data of AmazonTitles-3M's shape, one cycle
(proxies, index, shortlists, an epoch, validation, checkpoint) of configs/scaling.yaml through
``ray-xml train``, and ``ray-xml evaluate``, each a process tree that is watched. All runs train
about as many labels a batch. FILE gets a list of objects, one a run:

    labels, documents, workers, dim
    seconds_per_document    of the epoch's steps, waiting for shortlists included
    steps_seconds_per_document  without that waiting
    peak_rss_gib, peak_pss_gib  over all processes of training at one moment, the larger of
                            training and evaluating; RSS counts a shared page once for each process
    driver_rss_gib          the driver's own peak
    bytes_sent_per_step     by one worker
    candidates_per_step     labels that a batch trained
    p_at_1, baseline_p_at_1 in percent, on the test split; the baseline gives everybody the most
                            frequent labels
    seconds                 of the run's phases; wall_seconds: of training; evaluate_seconds
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from watched import watched

from ray_xml.evaluation import baseline
from ray_xml.run_folder import RunFolder
from ray_xml.run_sections import DataSetConfig
from ray_xml.store import DataSet

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    work = Path(options.work or tempfile.mkdtemp(prefix="scaling-"))
    rows: list[Row] = []
    try:
        for labels, documents, workers in itertools.product(
            options.labels, options.documents, options.workers
        ):
            rows.append(_measure(work, labels, documents, workers, options))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    finally:
        if not options.work:
            shutil.rmtree(work, ignore_errors=True)
    print(table(rows))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--labels", type=_numbers, default=[10_000, 100_000])
    parser.add_argument("--documents", type=_numbers, default=[20_000])
    parser.add_argument("--workers", type=_numbers, default=[2])
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--test-documents", type=int, default=2000)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "scaling.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    parser.add_argument("--work", help="folder for data and runs (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _measure(
    work: Path, labels: int, documents: int, workers: int, options: argparse.Namespace
) -> Row:
    data, run = work / f"data-{labels}-{documents}", work / "run"
    if not (data / "meta.json").is_file():
        sizes = {"labels": labels, "documents": documents, "test-documents": options.test_documents}
        flags = [f"--{name}={value}" for name, value in sizes.items()]
        watched(["synth", str(data), "--like=amazontitles-3m", *flags], work / "synth.log")
    shutil.rmtree(run, ignore_errors=True)
    overrides = {
        "data": data,
        "run": run,
        "encoder.dim": options.dim,
        "resources.workers": workers,
        "resources.label_shards": workers,
    }
    named = [f"{key}={value}" for key, value in overrides.items()]
    train = watched(["train", str(options.config), *named, *options.set], work / "train.log")
    log = work / "evaluate.log"
    evaluate = watched(["evaluate", str(run), "--json"], log)
    results = json.loads(log.read_text(encoding="utf-8").strip().splitlines()[-1])
    plain = baseline(DataSet.open(data), "test", DataSetConfig())
    lines = RunFolder(run).lines()
    last, seconds = lines[-1], _added_up([line["seconds"] for line in lines])
    trained = len(lines) * round(documents * (1 - RunFolder(run).config().training.validation))
    steps = seconds["classifier"]
    return {
        "labels": labels,
        "documents": documents,
        "workers": workers,
        "dim": options.dim,
        "seconds_per_document": (steps + seconds.get("shortlist", 0.0)) / trained,
        "steps_seconds_per_document": steps / trained,
        "peak_rss_gib": max(train.peak_rss, evaluate.peak_rss) / GIB,
        "peak_pss_gib": max(train.peak_pss, evaluate.peak_pss) / GIB,
        "driver_rss_gib": train.root_rss / GIB,
        "evaluate_rss_gib": evaluate.peak_rss / GIB,
        "bytes_sent_per_step": last["bytes_sent_per_step"],
        "candidates_per_step": last["candidates_per_step"],
        "indexes": last["indexes"],
        "p_at_1": results["P@1"],
        "psp_at_5": results["PSP@5"],
        "baseline_p_at_1": plain["P@1"],
        "seconds": seconds,
        "wall_seconds": train.wall_seconds,
        "evaluate_seconds": evaluate.wall_seconds,
    }


def _added_up(phases: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for one in phases for name in one})
    return {name: round(sum(one.get(name, 0.0) for one in phases), 3) for name in names}


COLUMNS = {
    "labels": ("labels", "{:,}"),
    "documents": ("documents", "{:,}"),
    "workers": ("workers", "{}"),
    "seconds_per_document": ("ms a document", "{:.3f}"),
    "steps_seconds_per_document": ("of it steps", "{:.3f}"),
    "candidates_per_step": ("candidates", "{:,}"),
    "peak_rss_gib": ("peak RSS GiB", "{:.2f}"),
    "peak_pss_gib": ("peak PSS GiB", "{:.2f}"),
    "driver_rss_gib": ("driver GiB", "{:.2f}"),
    "bytes_sent_per_step": ("bytes sent a step", "{:,}"),
    "p_at_1": ("P@1", "{:.2f}"),
    "baseline_p_at_1": ("most frequent", "{:.2f}"),
    "wall_seconds": ("train s", "{:.0f}"),
    "evaluate_seconds": ("evaluate s", "{:.0f}"),
}


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    heads = [head for head, _ in COLUMNS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    milli = {key: 1000 * row[key] for key in row if key.endswith("seconds_per_document")}
    return [form.format({**row, **milli}[key]) for key, (_, form) in COLUMNS.items()]


def _line(row: Row) -> str:
    return ", ".join(
        f"{head} {cell}" for (head, _), cell in zip(COLUMNS.values(), _cells(row), strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
