"""Refreshes: shortlist files and validation against brute force over all labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made import dense, make_config, make_training, random_csr

from ray_xml import refresh
from ray_xml.metrics import MetricSums
from ray_xml.refresh import BETAS, _count_hits
from ray_xml.store import DataSet
from ray_xml.training import Training

SIZE = 12


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, and rows sent in several pieces, in a data set of 600 documents."""
    monkeypatch.setattr(refresh, "BLOCK", 128)
    monkeypatch.setattr(refresh, "_ROW_BLOCK", 13)


def make(data: DataSet, folder: Path, source: str, parts: int = 3) -> Training:
    config = make_config(
        shortlist={"source": source, "size": SIZE},
        encoder={"tokens": "svd", "dim": 32},
        training={"validation": 0.2},
    )
    training = make_training(data, config, folder, parts=parts)
    generator = torch.Generator().manual_seed(0)
    weight = training.classifier.weight
    weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    training.refresher.fit_proxies(0, training.features)
    training.refresher.send_classifier()
    return training


def all_scores(training: Training, features) -> dict[str, np.ndarray]:
    """float64 [N, L]: score of every label under each source, −inf for labels never seen."""
    z = training.encoder.encode(features).half().double().numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    parts = training.ranges._ranges
    proxies = np.concatenate([part.proxies() for part in parts]).astype(np.float64)
    classifier = training.classifier
    scores = {
        "proxy": unit @ proxies.T,
        "classifier": z @ classifier.weight.double().numpy().T + classifier.bias.double().numpy(),
    }
    unseen = training.label_counts == 0
    assert unseen.any()
    for one in scores.values():
        one[:, unseen] = -np.inf
    return scores


def best(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-np.round(scores, 5), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("source", ["proxy", "classifier", "both"])
def test_shortlists_are_brute_force(data: DataSet, tmp_path: Path, source: str) -> None:
    training = make(data, tmp_path, source)
    path = tmp_path / "shortlists" / "made.i32"
    training.refresher.write_shortlists(path, training.features)
    sources = training.config.shortlist.sources
    lists = np.fromfile(path, np.int32).reshape(training.features.num_rows, SIZE * len(sources))
    scores = all_scores(training, training.features)
    expected = np.concatenate([best(scores[one], SIZE) for one in sources], 1)
    agree = 0
    for row, names in zip(lists, expected, strict=True):
        listed = row[row >= 0].tolist()
        assert len(set(listed)) == len(listed)  # a label that both sources name is listed once
        agree += set(listed) == set(names.tolist())
    # Rounding may turn a near-tie at the cut; that is rare.
    assert agree >= len(lists) - 3


def test_fitted_rows_find_their_labels(data: DataSet, tmp_path: Path) -> None:
    training = make(data, tmp_path, "proxy")
    training.refresher.write_shortlists(tmp_path / "made.i32", training.features)
    lists = np.fromfile(tmp_path / "made.i32", np.int32).reshape(-1, SIZE)
    hits = _count_hits(lists, training.labels.packed())
    assert hits > 0.7 * training.labels.nnz


@pytest.mark.parametrize("metric", ["P@1", "PSP@5"])
def test_validation_chooses_the_best_beta(data: DataSet, tmp_path: Path, metric: str) -> None:
    training = make(data, tmp_path, "both")
    features, labels = training.held_features, training.held_labels
    found = training.refresher.validate(features, labels, training.sums, metric, None)
    scores = all_scores(training, features)
    listed = np.full_like(scores["proxy"], -np.inf)
    for one in ("proxy", "classifier"):
        np.put_along_axis(listed, best(scores[one], SIZE), 0.0, 1)
    results = []
    for beta in BETAS:
        by = 1 / (1 + np.exp(-scores["classifier"])), 1 / (1 + np.exp(-scores["proxy"]))
        blend = listed + beta * by[0] + (1 - beta) * by[1]
        sums = training.sums.from_array(np.zeros_like(training.sums.as_array()))
        sums.update(np.argsort(-blend, axis=1, kind="stable")[:, :5], labels)
        results.append(sums.result())
    values = [result[metric] for result in results]
    assert len({round(value, 6) for value in values}) > 2  # β matters here
    assert found.beta == BETAS[int(np.argmax(values))]
    assert found.results == pytest.approx(results[int(np.argmax(values))], abs=0.5)
    assert found.results[metric] == pytest.approx(max(values), abs=1e-6)
    truth = dense(labels) > 0
    assert found.recall == pytest.approx(100 * (listed == 0)[truth].mean(), abs=0.5)


def test_validation_at_a_given_beta(data: DataSet, tmp_path: Path) -> None:
    training = make(data, tmp_path, "proxy")
    refresher, held = training.refresher, (training.held_features, training.held_labels)
    free = refresher.validate(*held, training.sums, "P@1", None)
    bound = refresher.validate(*held, training.sums, "P@1", 0.0)
    assert bound.beta == 0.0
    assert bound.recall == free.recall
    assert bound.results["P@1"] <= free.results["P@1"]
    assert isinstance(training.sums, MetricSums)
    assert training.sums.documents == 0  # the yardstick itself stays empty


def test_hits_are_counted_as_a_loop_would() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = random_csr(rng, 9, 15, 0.3, binary=True)
        lists = np.stack([rng.permutation(15)[:6] for _ in range(9)]).astype(np.int32)
        lists[rng.random(lists.shape) < 0.3] = -1
        expected = sum(
            len(set(lists[row].tolist()) & set(np.flatnonzero(held).tolist()))
            for row, held in enumerate(dense(truth))
        )
        assert _count_hits(lists, truth) == expected


def test_own_blocks_encode_every_document_once(data: DataSet, tmp_path: Path) -> None:
    training = make(data, tmp_path, "proxy")
    seen, whole = [], training.encoder.encode(training.features).half().numpy()
    for first, block in training.refresher.own_blocks(training.features, "encode"):
        assert block.dtype == np.float16
        np.testing.assert_allclose(
            block.astype(np.float32), whole[first : first + len(block)], rtol=2e-3, atol=1e-4
        )
        seen += range(first, first + len(block))
    assert seen == list(range(training.features.num_rows))
