"""Small finished runs in this process, one for each source of shortlists, made once."""

from __future__ import annotations

from pathlib import Path

from made import make_config, train

from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

SOURCES = ("proxy", "classifier", "both")


def trained_run(data: DataSet, folder: Path, source: str = "proxy") -> RunFolder:
    """Four epochs over three label ranges; made only if ``folder`` holds no run yet."""
    run = RunFolder(folder / source)
    if not run.epochs_done():
        config = make_config(
            training={"epochs": 4, "batch_size": 32, "cycle_epochs": 2},
            shortlist={"source": source},
        )
        config = config.model_copy(update={"data": str(data.path), "run": str(run.path)})
        train(data, config, run.path, parts=3)
    return run
