"""Points of a run's work at which a process waits to be killed.

``with_points`` is named by RAY_RUNTIME_ENV_HOOK: it has each process of a run's Ray job call
``install`` before anything else. Functions of ray_xml are then replaced, as their modules are
imported, by ones that look into a plan first. Where the plan names the point, the first process
to get there leaves its pid in a file, and goes on once another file is there. The product knows
nothing of this.

Files in the folder that the environment variable ``FOLDER`` names:

    plan.json       [[point, number], …]; the number is an epoch's or a cycle's
    encode-2.pid    who waits at the point, in the place of a whole file
    encode-2.go     that it need not wait any longer
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = "RAY_XML_FAULTS"
_PATIENCE = 240.0  # seconds after which a process goes on although nobody told it to
_MIDDLE = 8  # the step of an epoch that counts as its middle

_now = {"cycle": -1, "epoch": -1, "steps": 0}  # where this process is


def with_points(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """The job's runtime environment, with ``install`` in every process."""
    given = dict(runtime_env or {})
    names = {name: os.environ[name] for name in (FOLDER, "PYTHONPATH")}
    given["env_vars"] = {**given.get("env_vars", {}), **names}
    return {**given, "worker_process_setup_hook": "points.install"}


def install() -> None:
    """Replaces the functions of ``POINTS`` in the modules that this process imports from now on."""
    assert not set(POINTS) & set(sys.modules), "too late"
    sys.meta_path.insert(0, _Finder())


def pause(point: str, number: int) -> None:
    """Waits, if the plan says so and nobody has waited here before."""
    if [point, number] not in _plan():
        return
    marker = Path(os.environ[FOLDER]) / f"{point}-{number}.pid"
    draft = marker.with_name(f".{marker.name}.{os.getpid()}")
    draft.write_text(str(os.getpid()))
    try:
        os.link(draft, marker)  # whole, and only one process is the first
    except FileExistsError:
        return
    finally:
        draft.unlink()
    end = time.monotonic() + _PATIENCE
    while not marker.with_suffix(".go").exists() and time.monotonic() < end:
        time.sleep(0.01)


@functools.cache
def _plan() -> list[list[Any]]:
    plan: list[list[Any]] = json.loads((Path(os.environ[FOLDER]) / "plan.json").read_text())
    return plan


def _before(owner: Any, name: str, look: Callable[..., None]) -> None:
    """Has ``look`` called with the arguments of ``owner.name`` before that is."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        look(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, watched)


# ---- which functions, and what number their arguments tell --------------------------------------


def _matrix_file(module: ModuleType) -> None:
    def look(file: Any, *_: Any) -> None:
        what, _, number = file.path.stem.partition("-")
        if what == "embeddings":
            pause("encode", int(number))

    _before(module.MatrixFile, "write", look)


def _label_range(module: ModuleType) -> None:
    def bring(_: Any, state: Any) -> None:
        _now["cycle"] = state.cycle

    def search(_: Any, embeddings: Any, k: int, sources: Any, scores: bool, *__: Any) -> None:
        if not scores:  # for shortlists
            pause("search", _now["cycle"])

    _before(module.LabelRange, "bring", bring)
    _before(module.LabelRange, "pair_sums", lambda *_: pause("proxies", _now["cycle"]))
    _before(module.LabelRange, "_index", lambda *_: pause("index", _now["cycle"]))
    _before(module.LabelRange, "search", search)


def _shortlists(module: ModuleType) -> None:
    _before(module, "_gathered", lambda *_: pause("shortlist", _now["epoch"]))


def _steps(module: ModuleType) -> None:
    def step(_: Any, __: Any, epoch: int, number: int, ___: float) -> None:
        if number == _MIDDLE:
            pause("classifier", epoch)

    _before(module.Steps, "_step", step)


def _training(module: ModuleType) -> None:
    def epoch(_: Any, epoch: int) -> None:
        _now["epoch"] = epoch

    def validate(training: Any) -> None:
        _now["epoch"] = training.state.epoch

    _before(module.Training, "_train_epoch", epoch)
    _before(module.Training, "_validate", validate)


def _blend(module: ModuleType) -> None:
    _before(module, "fit", lambda *_, **__: pause("validation", _now["epoch"]))


def _checkpoint(module: ModuleType) -> None:
    def part(folder: Path, kind: str, *_: Any) -> None:
        if kind == "optimizer-tokens":  # after the table, before the classifier
            name = folder.name.removesuffix(".unfinished")
            pause("checkpoint", int(name.rpartition("-")[2]))

    _before(module, "save_part", part)


def _run_folder(module: ModuleType) -> None:
    def append(_: Any, line: dict[str, Any], *__: Any) -> None:
        pause("report", line["epoch"])

    _before(module.RunFolder, "append", append)


POINTS: dict[str, Callable[[ModuleType], None]] = {
    "ray_xml.matrix_file": _matrix_file,
    "ray_xml.label_range": _label_range,
    "ray_xml.shortlists": _shortlists,
    "ray_xml.epoch_steps": _steps,
    "ray_xml.training": _training,
    "ray_xml.blend": _blend,
    "ray_xml.checkpoint": _checkpoint,
    "ray_xml.run_folder": _run_folder,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of ``POINTS`` as ever, and changes them once they have been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in POINTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            POINTS[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
