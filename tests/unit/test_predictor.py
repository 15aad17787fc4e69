"""The predictor: what the run measured while training, slow arithmetic, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made import UNSEEN, dense
from trained import SOURCES, trained_run

from ray_xml import checkpoint
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.evaluation import METRICS
from ray_xml.predictor import Predictor
from ray_xml.run_data import metric_sums, split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet


@pytest.fixture(scope="module")
def runs(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return {source: trained_run(data, folder, source) for source in SOURCES}


@pytest.fixture
def copy(runs: dict[str, RunFolder], tmp_path: Path) -> RunFolder:
    """A run to spoil."""
    shutil.copytree(runs["proxy"].path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("source", SOURCES)
def test_it_measures_what_the_run_measured(
    runs: dict[str, RunFolder], data: DataSet, source: str
) -> None:
    predictor = Predictor.load(runs[source].path)
    _, held = split_rows(data, predictor.config)
    train = data.split("train")
    sums = metric_sums(data, predictor.config.dataset)
    sums.update(predictor.predict(train.features.take(held)).labels, train.labels.take(held))
    told = predictor.manifest["validation"]
    assert len(held) == 60
    for key in METRICS:
        assert sums.result()[key] == pytest.approx(told[key], abs=1e-6), key
    assert predictor.beta == predictor.manifest["beta"]


@pytest.mark.parametrize("source", SOURCES)
def test_against_slow_arithmetic(runs: dict[str, RunFolder], data: DataSet, source: str) -> None:
    """Every score worked out over all labels, from the checkpoint's own tensors."""
    run = runs[source]
    predictor = Predictor.load(run.path)
    folder, labels, dim = run.model(), data.meta.num_labels, 24

    def whole(kind: str, name: str, size: int, axis: int = 0) -> np.ndarray:
        return checkpoint.load_range(folder, kind, name, (0, size), axis=axis).astype(np.float64)

    x = dense(data.split("test").features).astype(np.float64)
    v = np.maximum(x @ whole("tokens", "table", dim, 1), 0)
    weight, bias = whole("encoder", "normalised_weight", dim), whole("encoder", "bias", dim)
    z = (v + np.maximum(v @ weight.T + bias, 0)).astype(np.float16).astype(np.float64)
    proxies = whole("proxies", "proxies", labels)
    cosines = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ proxies.T
    logits = z @ whole("classifier", "weight", labels).T + whole("classifier", "bias", labels)

    def sigmoid(y: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-y))

    scores = predictor.beta * sigmoid(logits) + (1 - predictor.beta) * sigmoid(cosines)
    known = proxies.any(1)
    assert set(np.flatnonzero(~known)) >= set(UNSEEN)
    listed = np.zeros_like(known, shape=scores.shape)
    for by, name in ((cosines, "proxy"), (logits, "classifier")):
        if name in predictor.config.shortlist.sources:
            order = np.argsort(np.where(known, -by, np.inf), axis=1)[:, :12]
            np.put_along_axis(listed, order, True, axis=1)
    scores = np.where(listed, scores, -np.inf)
    found = predictor.predict(data.split("test").features)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    # An embedding that falls just beside a float16 step may trade two near-equal labels.
    assert (found.labels == best).mean() > 0.99
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, best, 1), atol=2e-3)


def test_labels_without_documents_are_never_predicted(
    runs: dict[str, RunFolder], data: DataSet
) -> None:
    predictor = Predictor.load(runs["classifier"].path)
    everything = predictor.predict(data.split("test").features, top=data.meta.num_labels)
    seen = data.meta.num_labels - len(UNSEEN)
    assert everything.labels.shape == (150, data.meta.num_labels)
    assert not np.isin(everything.labels, UNSEEN).any()
    for row, scores in zip(everything.labels, everything.scores, strict=True):
        count = int((row >= 0).sum())
        assert seen - 15 < count <= seen  # some lost their only document to validation
        assert len(set(row[:count].tolist())) == count
        assert (row[count:] == -1).all()
        assert np.isneginf(scores[count:]).all()
        assert (np.diff(scores[:count]) <= 0).all()
        assert ((scores[:count] >= 0) & (scores[:count] <= 1)).all()


def test_blocks_and_order_do_not_matter(runs: dict[str, RunFolder], data: DataSet) -> None:
    predictor = Predictor.load(runs["both"].path)
    features = data.split("train").features
    copies = features.take(np.tile(np.arange(600), 4))  # more than two blocks
    whole, once = predictor.predict(copies), predictor.predict(features)
    assert np.array_equal(whole.labels, np.tile(once.labels, (4, 1)))
    np.testing.assert_allclose(whole.scores, np.tile(once.scores, (4, 1)), atol=1e-6)
    turned = predictor.predict(features.take(np.arange(600)[::-1]))
    assert np.array_equal(turned.labels[::-1], once.labels)


def test_a_larger_top_keeps_the_smaller_one_s_best(
    runs: dict[str, RunFolder], data: DataSet
) -> None:
    predictor, features = Predictor.load(runs["proxy"].path), data.split("test").features
    few, more = predictor.predict(features, 3), predictor.predict(features, 12)
    assert np.array_equal(few.labels, more.labels[:, :3])


def test_no_documents_and_empty_documents(runs: dict[str, RunFolder], data: DataSet) -> None:
    predictor = Predictor.load(runs["proxy"].path)
    none = predictor.predict(data.split("test").features.slice(0, 0), top=4)
    assert none.labels.shape == none.scores.shape == (0, 4)
    empty = predictor.predict(Csr.from_lists([[], [5]], data.meta.num_features, [[], [1.0]]))
    assert empty.labels.shape == (2, 5)
    assert np.isfinite(empty.scores).all()


def test_other_features_are_refused(runs: dict[str, RunFolder]) -> None:
    predictor = Predictor.load(runs["proxy"].path)
    with pytest.raises(DataSetError, match=r"have 7 features, the model was trained on 300"):
        predictor.predict(Csr.from_lists([[1]], 7, [[1.0]]))


def test_the_best_checkpoint_is_the_one_used(copy: RunFolder) -> None:
    before = Predictor.load(copy.path)
    best = before.manifest["best_epoch"]
    assert before.manifest["epoch"] == best
    # One without proxies, newer than all: it cannot predict, so it is passed over.
    newer = checkpoint.folder_of(copy.checkpoints, 9)
    shutil.copytree(copy.model(), newer)
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "with_proxies": False}))
    assert Predictor.load(copy.path).manifest["epoch"] == best
    with pytest.raises(CheckpointError, match="has no proxies yet, so it cannot predict"):
        Predictor(newer, copy.config())


def test_what_is_no_run_or_no_model_is_told(copy: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere: no run here .*`ray-xml train"):
        Predictor.load(tmp_path / "nowhere")
    shutil.rmtree(copy.checkpoints)
    with pytest.raises(CheckpointError, match="no checkpoint that can predict yet"):
        Predictor.load(copy.path)


def test_a_damaged_checkpoint_is_told(copy: RunFolder) -> None:
    part = copy.model() / "classifier-00000.safetensors"
    raw = part.read_bytes()
    part.write_bytes(raw[:-1])
    with pytest.raises(CheckpointError, match=r"classifier-00000.* the manifest says"):
        Predictor.load(copy.path)
    part.unlink()
    with pytest.raises(CheckpointError, match=r"classifier-00000.*: missing"):
        Predictor.load(copy.path)
