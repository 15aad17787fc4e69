"""A run goes on by itself, to the same model, whatever dies; the whole matrix is in ``matrix``."""

from __future__ import annotations

import pytest
from fault_places import OwnCluster
from fault_runs import Cell, FaultRun, Verdict, epochs_for
from small_runs import Run, both_config

from ray_xml.store import DataSet

KILLS = [
    Cell("search", "shard", 2),
    Cell("classifier", "worker", 5),
    Cell("checkpoint", "controller", 8),
]


@pytest.fixture(scope="module")
def verdicts(
    straight: Run, data: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> dict[Cell | str, Verdict]:
    """What came of ``KILLS`` in one run, and of the run."""
    folder = tmp_path_factory.mktemp("faults")
    config = both_config(
        data, folder / "run", workers=2, shards=3, epochs=epochs_for(KILLS), keep=16
    )
    place = OwnCluster(str(folder))
    found, end = FaultRun(config, KILLS, place, folder, straight.folder).verdicts()
    return {**found, "the whole run": end}


@pytest.mark.parametrize("cell", [*KILLS, "the whole run"], ids=str)
def test_nothing_is_lost(verdicts: dict[Cell | str, Verdict], cell: Cell | str) -> None:
    assert verdicts[cell].faults == []
    assert verdicts[cell].seconds is not None
