"""The scaling benchmark's tables, and the arithmetic of the one on paper."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import scaling
import scaling_paper

from ray_xml.config import load_config
from ray_xml.run_config import RunConfig

ROW = {
    "labels": 2_800_000,
    "documents": 20_000,
    "workers": 2,
    "seconds_per_document": 0.0017,
    "steps_seconds_per_document": 0.0013,
    "candidates_per_step": 36_000,
    "peak_rss_gib": 12.4,
    "peak_pss_gib": 8.7,
    "driver_rss_gib": 0.42,
    "bytes_sent_per_step": 793_932,
    "p_at_1": 35.75,
    "baseline_p_at_1": 6.6,
    "wall_seconds": 104.2,
    "evaluate_seconds": 9.1,
}


def test_the_table_gives_times_in_milliseconds() -> None:
    head, _, line = scaling.table([ROW]).splitlines()
    parts = [[part.strip() for part in row.split("|")] for row in (head, line)]
    cells = dict(zip(*parts, strict=True))
    assert (cells["ms a document"], cells["of it steps"]) == ("1.700", "1.300")
    assert (cells["labels"], cells["bytes sent a step"]) == ("2,800,000", "793,932")


def test_phases_of_several_epochs_are_added_up() -> None:
    phases = [{"train": 1.5, "proxies": 2.0}, {"train": 0.25}]
    assert scaling._added_up(phases) == {"proxies": 2.0, "train": 1.75}


def test_its_config_trains_one_cycle_on_as_many_candidates_whatever_the_labels() -> None:
    config = load_config(RunConfig, Path(scaling.ROOT) / "configs" / "scaling.yaml")
    assert config.training.epochs == config.training.cycle_epochs == 1
    assert config.classifier.candidates is not None


@pytest.mark.parametrize("data", scaling_paper.SETS)
def test_on_paper_what_is_cut_over_the_cards_shrinks_and_the_host_s_share_does_not(
    data: scaling_paper.Set,
) -> None:
    few, many = (scaling_paper.row(data, workers, 2048) for workers in (8, 64))
    assert many["GB a card"] == pytest.approx(few["GB a card"] / 8)
    assert many["search, s"] == pytest.approx(few["search, s"] / 8)
    for name in ("of it batch building, ms", "sparse channel, s"):
        assert many[name] == few[name]
    assert many["GB of answers"] == pytest.approx(8 * few["GB of answers"])
    wider = scaling_paper.row(
        scaling_paper.Set("", data.documents, 10 * data.labels, data.labels_per_document), 8, 2048
    )
    assert wider["MB sent a step"] == few["MB sent a step"]
