"""Accuracy on a published data set: a floor under everything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_xml.cluster.trainer import train
from ray_xml.config import load_config
from ray_xml.evaluation import evaluate
from ray_xml.predictor import Predictor
from ray_xml.prepare import prepare_xc
from ray_xml.run_config import RunConfig
from ray_xml.store import DataSet

ROOT = Path(__file__).parents[2]
BIBTEX = ROOT.parent / "shared" / "data" / "bibtex"


@pytest.mark.skipif(not BIBTEX.is_dir(), reason=f"needs the Bibtex files in {BIBTEX}")
def test_bibtex(cluster: None, tmp_path: Path) -> None:
    """8 epochs from the published files; more epochs and tuning give a few points more."""
    folder = tmp_path / "data"
    prepare_xc(BIBTEX / "train.txt.xz", BIBTEX / "test.txt.xz", folder, name="Bibtex")
    overrides = [f"data={folder}", f"run={tmp_path / 'run'}", "training.epochs=8"]
    overrides += ["resources.workers=1", "resources.label_shards=1"]
    train(load_config(RunConfig, ROOT / "configs" / "bibtex.yaml", overrides))
    results = evaluate(Predictor.load(tmp_path / "run"), DataSet.open(folder), "test")
    assert results["P@1"] >= 58
    assert results["P@5"] >= 26
    assert results["PSP@5"] >= 50
