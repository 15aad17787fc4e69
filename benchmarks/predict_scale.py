"""Prediction on Ray at scale: documents a second, memory over time, a kill half-way.

    python benchmarks/predict_scale.py --work data/predict --documents 1000000 --workers 2

makes a data set with ``ray-xml synth`` and trains a small model on it, both once, then predicts its
test split with ``ray-xml predict --workers``: kills the command (SIGKILL) when half of the parts
are there, and gives it again. Memory is that of all processes of the command, read once a second.
Prints a table, and with --json one object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq


class Command:
    """``ray-xml …`` in a process of its own, and what its processes hold, second by second."""

    def __init__(self, *arguments: object) -> None:
        self._process = psutil.Popen(
            [sys.executable, "-m", "ray_xml.cli", *map(str, arguments)],
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            start_new_session=True,
        )
        self.held: list[dict[str, int]] = []  # bytes by kind of process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            found: dict[str, int] = {}
            try:
                for one in self._process.children(recursive=True):
                    title = " ".join(one.cmdline())
                    for kind in ("PredictWorker", "PredictShard"):
                        if kind in title:
                            held = one.memory_info().rss
                            found[kind] = max(found.get(kind, 0), held)
            except psutil.Error:
                continue
            if found:
                self.held.append(found)

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> int:
        status = int(self._process.wait())
        self._stop.set()
        self._thread.join()
        return status


def prepare(work: Path, documents: int, labels: int) -> tuple[Path, Path]:
    """The data set and the run, made unless they are there."""
    data, run = work / f"data-{documents}-{labels}", work / f"run-{labels}-{documents}"
    if not data.is_dir():
        subprocess.run(
            [
                sys.executable, "-m", "ray_xml.cli", "synth", data, "--documents", "20000",
                "--test-documents", str(documents), "--labels", str(labels), "--overwrite",
            ],
            check=True,
        )  # fmt: skip
    config = work / "config.yaml"
    config.write_text("encoder: {dim: 128}\n", encoding="utf-8")
    subprocess.run(
        [
            sys.executable, "-m", "ray_xml.cli", "train", config, f"data={data}", f"run={run}",
            "training.epochs=1", "resources.workers=1", "resources.label_shards=1",
        ],
        check=True,
    )  # fmt: skip
    return data, run


def parts_in(out: Path) -> list[Path]:
    return sorted(out.glob("part-*.parquet"))


def check(out: Path, documents: int) -> None:
    """Every document once, in order."""
    at = 0
    for part in parts_in(out):
        numbers = pq.read_table(part, columns=["document"])["document"].to_numpy()
        assert numbers[0] == at, f"{part}: begins with {numbers[0]}, not {at}"
        assert (numbers[1:] - numbers[:-1] == 1).all(), f"{part}: a hole or a duplicate"
        at += len(numbers)
    assert at == documents, f"{at} documents, not {documents}"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Predicts with a kill half-way; returns the figures."""
    data, run = prepare(options.work, options.documents, options.labels)
    out = options.work / "predicted"
    shutil.rmtree(out, ignore_errors=True)
    arguments = (
        "predict", run, data, "--out", out, "--workers", options.workers, "--label-shards",
        options.label_shards, "--part-size", options.part_size,
    )  # fmt: skip
    total = -(-options.documents // options.part_size)
    begun = time.monotonic()
    command = Command(*arguments)
    while command.running() and len(parts_in(out)) < total // 2:
        time.sleep(0.2)
    killed_after = len(parts_in(out))
    command.kill()
    held = command.held
    time.sleep(10)  # what is left of the killed one goes
    command = Command(*arguments)
    status = command.end()
    assert status == 0, f"the second command ended with {status}"
    check(out, options.documents)
    last = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["done"]["last_call"]
    memory = {}
    for kind in ("PredictWorker", "PredictShard"):
        series = [one[kind] for one in command.held if kind in one]
        tenth = max(1, len(series) // 10)
        memory[kind] = {
            "MiB after a tenth": max(series[: 2 * tenth]) / 2**20,
            "MiB at most": max(series + [one.get(kind, 0) for one in held]) / 2**20,
            "MiB at the end": series[-tenth] / 2**20,
        }
    return {
        "documents": options.documents,
        "labels": options.labels,
        "workers": options.workers,
        "label_shards": options.label_shards,
        "parts": total,
        "killed after": killed_after,
        "made by the second command": last["documents"],
        "docs/s": last["docs_per_second"],
        "seconds in all": time.monotonic() - begun,
        "memory": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything made")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--label-shards", type=int, default=1)
    parser.add_argument("--part-size", type=int, default=51_200)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    figures = measure(options)
    for name, value in figures.items():
        print(f"{name:28} {value:,.1f}" if isinstance(value, float) else f"{name:28} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
