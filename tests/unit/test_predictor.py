"""The predictor: what the run measured while training, slow arithmetic, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from crossfit import cross_fitted
from made import UNSEEN, dense
from trained import SOURCES, trained_run

from ray_xml import checkpoint
from ray_xml.blend import NAMES
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.evaluation import METRICS
from ray_xml.predictor import Predictor
from ray_xml.run_data import split_rows
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
    assert len(split_rows(data, predictor.config)[1]) == 60
    manifest = checkpoint.read_manifest(runs[source].model())
    told, found = manifest["validation"], cross_fitted(predictor, data)
    for key in METRICS:
        assert found[key] == pytest.approx(told[key], abs=1e-6), key
    assert predictor.model.blend.as_dict() == manifest["blend"]
    assert predictor.model.epoch == manifest["epoch"]


def sparse_channel(
    run: RunFolder, data: DataSet, x: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(bool [n, L] labels voted for, {feature of the score: [n, L]}) in dense float64.

    Rows whose last neighbour ties with the next are NaN: which of the two it is hangs on rounding.
    """
    config = run.config()
    train, (rows, _) = data.split("train"), split_rows(data, config)
    known, held = dense(train.features.take(rows)), dense(train.labels.take(rows)) > 0
    settings = config.neighbors

    def cut(documents: np.ndarray, most: int) -> np.ndarray:
        order = np.argsort(-documents, axis=1, kind="stable")
        kept = documents.copy()
        np.put_along_axis(kept, order[:, most:], 0, axis=1)
        return kept

    def unit(documents: np.ndarray) -> np.ndarray:
        return documents / np.linalg.norm(documents, axis=1, keepdims=True)

    known, asked = cut(unit(known), settings.terms), cut(unit(x), settings.terms)
    similar = asked @ known.T
    near = cut(similar, settings.size)
    ordered = -np.sort(-similar, axis=1)
    tied = ordered[:, settings.size - 1] - ordered[:, settings.size] < 1e-6
    near[tied & (ordered[:, settings.size] > 0)] = np.nan
    flat, sharp = near**2 @ held, near**4 @ held
    voted = cut(sharp, settings.labels) > 0
    counts = cut(held.T @ known, settings.label_terms)
    lengths = np.maximum(np.linalg.norm(counts, axis=1), 1e-12)
    flat_total, sharp_total = (near**2).sum(1)[:, None], (near**4).sum(1)[:, None]
    flat, sharp = np.where(voted, flat, 0), np.where(voted, sharp, 0)
    centroid = asked @ (counts / lengths[:, None]).T
    association = asked @ (counts / np.maximum(known.sum(0), 1e-12)).T
    return voted, {
        "share of flat votes": flat / flat_total,
        "share of sharp votes": sharp / sharp_total,
        "log share of flat votes": np.log(flat / flat_total + 1e-3),
        "log share of sharp votes": np.log(sharp / sharp_total + 1e-3),
        "log flat votes": np.log(flat + 1e-3),
        "centroid": centroid,
        "log centroid": np.log(centroid + 1e-3),
        "association": association,
        "log association": np.log(association + 1e-3),
        "log count": np.tile(np.log(np.maximum(held.sum(0), 1)), (len(x), 1)),
    }


def quadratic(numbers: dict[str, list[float]], evidence: dict[str, np.ndarray]) -> np.ndarray:
    """The score's log-odds as its formula has them, feature by feature."""
    assert evidence.keys() == set(NAMES)
    weights = iter(numbers["weights"])
    scaled = [
        (evidence[name] - mean) * scale
        for name, mean, scale in zip(NAMES, numbers["mean"], numbers["scale"], strict=True)
    ]
    total = next(weights) + sum(next(weights) * x for x in scaled)
    for i in range(len(NAMES)):
        for j in range(i, len(NAMES)):
            total = total + next(weights) * scaled[i] * scaled[j]
    assert next(weights, None) is None
    return total


@pytest.mark.parametrize("source", SOURCES)
def test_against_slow_arithmetic(runs: dict[str, RunFolder], data: DataSet, source: str) -> None:
    """Every score worked out over all labels, from the checkpoint's own tensors and the data."""
    run = runs[source]
    predictor = Predictor.load(run.path)
    folder, labels, dim = run.model(), data.meta.num_labels, 24

    def whole(kind: str, name: str, size: int, axis: int = 0) -> np.ndarray:
        return checkpoint.load_range(folder, kind, name, (0, size), axis=axis).astype(np.float64)

    test = data.split("test").features
    # Other weights than in the data, where many similarities are equal.
    weights = np.random.default_rng(0).uniform(0.5, 1.5, test.nnz).astype(np.float32)
    features = Csr(test.offsets, test.ids, test.packed().values * weights, test.num_columns)
    x = dense(features).astype(np.float64)
    v = np.maximum(x @ whole("tokens", "table", dim, 1), 0)
    weight, bias = whole("encoder", "normalised_weight", dim), whole("encoder", "bias", dim)
    z = (v + np.maximum(v @ weight.T + bias, 0)).astype(np.float16).astype(np.float64)
    proxies = whole("proxies", "proxies", labels)
    cosines = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ proxies.T
    logits = z @ whole("classifier", "weight", labels).T + whole("classifier", "bias", labels)
    voted, evidence = sparse_channel(run, data, x)
    evidence |= {"logit": logits, "cosine": cosines}
    log_odds = quadratic(checkpoint.read_manifest(folder)["blend"], evidence)
    known = proxies.any(1)
    assert set(np.flatnonzero(~known)) >= set(UNSEEN)
    listed = voted.copy()
    for by, name in ((cosines, "proxy"), (logits, "classifier")):
        if name in predictor.config.shortlist.sources:
            order = np.argsort(np.where(known, -by, np.inf), axis=1)[:, :12]
            np.put_along_axis(listed, order, True, axis=1)
    assert 0.01 < (listed & ~voted).mean() < 0.9
    sure = ~np.isnan(log_odds).any(1)
    assert sure.mean() > 0.8
    log_odds = np.where(listed, log_odds, -np.inf)[sure]
    found = predictor.predict(features.take(np.flatnonzero(sure)))
    best = np.argsort(-log_odds, axis=1, kind="stable")[:, :5]
    # An embedding that falls just beside a float16 step may trade two near-equal labels.
    assert (found.labels == best).mean() > 0.99
    expected = 1 / (1 + np.exp(-np.take_along_axis(log_odds, best, 1)))
    np.testing.assert_allclose(found.scores, expected, atol=2e-3)


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
    best = checkpoint.read_manifest(copy.model())["best_epoch"]
    assert Predictor.load(copy.path).model.epoch == best
    # One without proxies, newer than all: it cannot predict, so it is passed over.
    newer = checkpoint.folder_of(copy.checkpoints, 9)
    shutil.copytree(copy.model(), newer)
    manifest = json.loads((newer / "manifest.json").read_text())
    changed = checkpoint.sealed({**manifest, "with_proxies": False})
    (newer / "manifest.json").write_text(json.dumps(changed))
    assert Predictor.load(copy.path).model.epoch == best


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
