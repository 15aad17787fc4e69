"""Small finished runs in this process, one for each source of shortlists, made once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from made import make_config, train

from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

SOURCES = ("proxy", "classifier", "both")


def run_at(data: DataSet, folder: Path, *, parts: int, **sections: Mapping[str, Any]) -> RunFolder:
    """A run in the folder, over ``parts`` label ranges; ``sections`` as for ``make_config``."""
    run, paths = RunFolder(folder), {"data": str(data.path), "run": str(folder)}
    train(data, make_config(**sections).model_copy(update=paths), folder, parts=parts)
    return run


def trained_run(data: DataSet, folder: Path, source: str = "proxy") -> RunFolder:
    """Four epochs over three label ranges; made only if ``folder`` holds no run yet."""
    run = RunFolder(folder / source)
    if not run.epochs_done():
        run_at(
            data,
            run.path,
            parts=3,
            training={"epochs": 4, "batch_size": 32, "cycle_epochs": 2},
            shortlist={"source": source},
        )
    return run
