"""One system on one data set: train, save, load in a fresh process, predict, score."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import environments
import exchange_files
import numpy as np
import process_tree
import systems
from process_tree import Usage

from ray_xml.config import load_config
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip

Row = dict[str, Any]


class FailedError(Exception):
    """A system could not be measured; the message says at which step, and where its output is."""


@dataclass(frozen=True)
class Plan:
    """What is the same for all systems.

    Attributes:
        cache: environments, data sets for the peers, models and logs.
        threads: of every system.
        repeats: predictions of the whole test set.
        singles: documents asked one by one.
        config: ray_xml's config; None is the data set's own.
        overrides: ray_xml's settings, as key=value.
    """

    cache: Path
    threads: int
    repeats: int
    singles: int
    config: Path | None
    overrides: list[str]

    def config_for(self, data: DataSet) -> tuple[Path, RunConfig]:
        path = self.config or systems.config_for(data.meta.name)
        return path, load_config(RunConfig, path, self.overrides)


def measure(system: systems.System, data: DataSet, plan: Plan) -> Row:
    """A row of the results.

    Raises:
        InstallError, FailedError, ExchangeError: there is no row to be had.
    """
    python = python_for(system, plan.cache)
    files = exchange_files.write_data_set(data, plan.cache / "data")
    work = plan.cache / "work" / files.name / system.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    model = work / "model"
    config_path, config = plan.config_for(data)
    ours = system is systems.RAY_XML
    if ours:
        training = systems.training_command(
            config_path, plan.overrides, data.path, model, plan.threads, data.meta.num_labels
        )
    else:
        training = [*system.command(python), "train", f"--data={files}", f"--model={model}"]
        training.append(f"--threads={plan.threads}")
    # Ray tells each worker how many threads it may use, unless the variables are set.
    env = environment(None if ours else plan.threads)
    train = _run(training, env, work / "train.log", "training")
    row: Row = {
        "system": system.name,
        "settings": f"configs/{config_path.name}" if ours else system.settings,
        "versions": environments.versions(python, system.shown),
        "training_command": training,
        "train": asdict(train),
    }
    models = [model]
    if ours:
        row["training_seconds_outside_epochs"] = outside_epochs(model, train.wall_seconds)
        models = [*_export(model, work / "export"), *models]
    row |= _predict(system.command(python), files, models, work, plan)
    answers = exchange_files.read_answers(work / "predictions.npz")
    row["metrics"] = exchange_files.score(data, config.dataset, answers.labels)
    return row | times(answers)


def python_for(system: systems.System, cache: Path) -> Path:
    """The python that runs ``system``, installed if need be."""
    if system.environment is None:
        return Path(sys.executable)
    folder = cache / "environments" / system.environment
    return environments.prepare(folder, system.requirements, system.bare)


def environment(threads: int | None) -> dict[str, str]:
    """The environment of a measured process: ``threads`` threads, no foreign import path."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in (*_THREAD_VARIABLES, "PYTHONPATH")
    }
    return env if threads is None else env | dict.fromkeys(_THREAD_VARIABLES, str(threads))


def times(answers: exchange_files.Answers) -> Row:
    """Prediction times as the results keep them."""
    one_ms = 1000 * answers.one_seconds
    return {
        "load_seconds": answers.load_seconds,
        "batch_seconds": answers.batch_seconds.tolist(),
        "batch_ms_per_document": 1000
        * float(np.median(answers.batch_seconds))
        / max(len(answers.labels), 1),
        "one_ms_p50": float(np.percentile(one_ms, 50)),
        "one_ms_p99": float(np.percentile(one_ms, 99)),
        "one_documents": len(one_ms),
    }


def outside_epochs(run: Path, wall_seconds: float) -> float:
    """What a training command spent outside its epochs: Ray's start and stop, imports, reading."""
    lines = RunFolder(run).lines()
    return wall_seconds - sum(sum(line["seconds"].values()) for line in lines)


def model_bytes(folder: Path) -> int:
    """The size on disk of what prediction needs: of a run, its best checkpoint's weights."""
    if (folder / "checkpoints").is_dir():
        folder = RunFolder(folder).model()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if not path.name.startswith("optimizer-"))


def _run(command: list[str], env: Mapping[str, str], log: Path, step: str) -> Usage:
    usage = process_tree.run(command, env=env, log=log)
    if usage.status:
        said = last_words(log.read_text(encoding="utf-8", errors="replace"))
        raise FailedError(f"{step} ended with status {usage.status}: {said} (log: {log})")
    return usage


def last_words(output: str) -> str:
    """The line of a failed program's output that names the error, cut short; else its last."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    # Not indented: a line of a traceback may name an error class as well.
    named = [line for line in lines if re.match(r"error:|[\w.]*(Error|Exception)\b", line)]
    return (named or lines or ["no output"])[-1].strip()[:300]


def _export(run: Path, out: Path) -> list[Path]:
    """The exported model, where this ray_xml has a command for that."""
    command = [sys.executable, "-m", "ray_xml.cli", "export"]
    known = subprocess.run([*command, "--help"], capture_output=True, check=False)
    if known.returncode:
        return []
    _run([*command, str(run), str(out)], environment(None), out.with_name("export.log"), "export")
    return [out]


def _predict(program: list[str], files: Path, models: list[Path], work: Path, plan: Plan) -> Row:
    """Predicts with the first of ``models`` that the program can load."""
    for model in models:
        command = [
            *(*program, "predict", f"--data={files}", f"--model={model}"),
            *(f"--threads={plan.threads}", f"--out={work / 'predictions.npz'}"),
            *(f"--repeats={plan.repeats}", f"--singles={plan.singles}"),
        ]
        try:
            usage = _run(command, environment(plan.threads), work / "predict.log", "prediction")
        except FailedError:
            if model is models[-1]:
                raise
            continue
        return {
            "predict": asdict(usage),
            "model": model.name,
            "model_bytes": model_bytes(model),
        }
    raise AssertionError("no model to predict with")


def machine() -> Row:
    """The machine as the results keep it."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": names[0] if names else "unknown",
        "cpus": os.cpu_count(),
        "cpus_used": sorted(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "system": " ".join(os.uname()[i] for i in (0, 2, 4)),
        "load_before": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.unfinished")
    draft.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
