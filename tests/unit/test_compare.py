"""``ray-xml compare``: differences with their errors, and what else sets runs apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import make_config, train
from test_report import checked
from trained import trained_run

from ray_xml.cli import main
from ray_xml.compare import against, comparison_table, config_differences
from ray_xml.compare_page import short_names
from ray_xml.evaluation import evaluate
from ray_xml.predictor import Predictor
from ray_xml.report_data import gather
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet


@pytest.fixture(scope="module")
def runs(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of four epochs, and one that has learnt much less."""
    folder = tmp_path_factory.mktemp("runs")
    other = folder / "short"
    config = make_config(
        training={"epochs": 1, "rate": 1e-5}, encoder={"dim": 8}, neighbors={"size": 0}
    )
    config = config.model_copy(update={"data": str(data.path), "run": str(other)})
    train(data, config, other)
    return trained_run(data, folder).path, RunFolder(other).path


def test_the_page_and_the_table(
    runs: tuple[Path, Path], data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "c.html"
    assert main(["compare", *map(str, runs), str(runs[0]), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    page = checked(out.read_text(encoding="utf-8"))
    assert page.of("h2") == [
        "Metrics", "Labels by frequency", "Training", "Time, memory, size",
        "What the configs differ in",
    ]  # fmt: skip
    first, second = (evaluate(Predictor.load(run), data, "test") for run in runs)
    cells = page.of("td")
    for key in ("P@1", "R@5", "PSnDCG@3"):
        assert f"{first[key]:.2f}" in cells
        assert f"{second[key]:.2f}" in cells
    apart = second["P@1"] - first["P@1"]
    assert apart < -10
    assert f"{apart:+.2f}*" in page.of("span")
    assert f"{apart:+.2f}±" in told
    assert "encoder.dim" in cells
    # Against itself there is no difference, and none is claimed.
    assert "+0.00" in page.of("span")
    assert "+0.00*" not in page.of("span")
    assert f"ray-xml compare {runs[0]} {runs[1]} {runs[0]} --out {out}" in page.of("dd")


def test_differences_are_those_of_the_metrics(runs: tuple[Path, Path], data: DataSet) -> None:
    first, second = (gather(str(run), "test") for run in runs)
    assert first.measured is not None
    assert second.measured is not None
    found = against(first.measured, second.measured)
    for key, one in found.items():
        ours, theirs = first.measured.tally.metrics[key], second.measured.tally.metrics[key]
        assert one.value == pytest.approx(theirs - ours, abs=1e-4), key
        assert one.error > 0
    assert found["P@1"].sure
    rows = dict(config_differences([first, second]))
    assert rows["encoder.dim"] == [24, 8]
    assert rows["training.epochs"] == [4, 1]
    assert "run" not in rows
    assert "data" not in rows
    assert comparison_table([first]).count("\n") == 1


def test_a_run_that_cannot_be_measured_is_shown_without(
    runs: tuple[Path, Path], data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = RunFolder(tmp_path / "fresh")
    fresh.begin(make_config().model_copy(update={"data": str(data.path)}))
    out = tmp_path / "c.html"
    assert main(["compare", str(fresh.path), str(runs[0]), "--out", str(out)]) == 0
    assert "no checkpoint that can predict yet" in capsys.readouterr().err
    page = checked(out.read_text(encoding="utf-8"))
    assert any("fresh: nothing was measured" in one for one in page.of("li"))
    assert "Metrics" in page.of("h2")


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert short_names(["runs/a", "runs/b/"]) == ["a", "b"]
    assert short_names(["x/a/run", "x/b/run"]) == ["a/run", "b/run"]
    assert short_names(["a", "a"]) == ["a (1)", "a (2)"]
