"""Refreshes: shortlist files and validation against brute force over all labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import dense, make_config, make_training, proxies_of, random_csr, whole

from ray_xml import blend, refresh
from ray_xml.blend import Evidence
from ray_xml.refresh import Validation, count_hits, true_candidates
from ray_xml.shortlists import Shortlists
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.training import Training
from ray_xml.truth import Truth

SIZE = 12


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, and rows sent in several pieces, in a data set of 600 documents."""
    monkeypatch.setattr(refresh, "BLOCK", 128)
    monkeypatch.setattr(refresh, "_ROW_BLOCK", 13)


def make(
    data: DataSet, folder: Path, source: str, parts: int = 3, **sections: dict[str, Any]
) -> Training:
    config = make_config(
        shortlist={"source": source, "size": SIZE},
        encoder={"tokens": "svd", "dim": 32},
        training={"validation": 0.2},
        **sections,
    )
    training = make_training(data, config, folder, parts=parts)
    generator = torch.Generator().manual_seed(0)
    weight = training.classifier.weight
    weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    training.refresher.fit_proxies(0, training.features, folder / "embeddings")
    training.refresher.send_classifier()
    return training


def all_scores(training: Training, features) -> dict[str, np.ndarray]:
    """float64 [N, L]: score of every label under each source, −inf for labels never seen."""
    z = training.encoder.encode(features).half().double().numpy()
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    proxies = proxies_of(training.ranges, len(training.label_counts)).astype(np.float64)
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


def shortlists(training: Training, path: Path) -> np.ndarray:
    """int32 [N, k]: the lists of all training documents, in the order of their numbers."""
    documents = np.arange(training.features.num_rows)
    made = Shortlists(path, documents, training.config.shortlist)
    found = made.search(64, training.ranges, training.exchange, training.device, lambda _: None)
    return np.concatenate([lists for _, lists in found])


@pytest.mark.parametrize("source", ["proxy", "classifier", "both"])
def test_shortlists_are_brute_force(data: DataSet, tmp_path: Path, source: str) -> None:
    training = make(data, tmp_path, source)
    lists = shortlists(training, tmp_path / "shortlists" / "made.i32")
    sources = training.config.shortlist.sources
    assert lists.shape == (training.features.num_rows, SIZE * len(sources))
    scores = all_scores(training, whole(training.features))
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
    lists, truth = shortlists(training, tmp_path / "lists" / "made.i32"), whole(training.labels)
    assert count_hits(lists, truth) > 0.7 * truth.nnz


def validate(training: Training) -> Validation:
    held = training.held_features, training.held_truth
    return training.refresher.validate(*held, training.lexical, training.sums)


def all_evidence(training: Training, features) -> tuple[Evidence, np.ndarray]:
    """(evidence of every label for each document, which labels are candidates), slowly.

    Candidates are the best of each source and those that neighbours vote for.
    """
    scores = all_scores(training, features)
    answer = training.lexical.ask(features)
    votes, shape = answer.votes, scores["proxy"].shape
    listed, flat, sharp = np.zeros(shape, bool), np.zeros(shape), np.zeros(shape)
    for source in training.config.shortlist.sources:
        np.put_along_axis(listed, best(scores[source], SIZE), True, 1)
    for row, place in zip(*np.nonzero(votes.labels >= 0), strict=True):
        label = votes.labels[row, place]
        listed[row, label] = True
        flat[row, label], sharp[row, label] = votes.flat[row, place], votes.sharp[row, place]
    everything = np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))
    evidence = Evidence(
        np.where(listed, everything, np.int32(-1)),
        np.where(listed, scores["classifier"], 0),
        np.where(listed, scores["proxy"], 0),
        flat,
        sharp,
        votes.flat_total,
        votes.sharp_total,
        *answer.fits(everything),
    )
    return evidence, listed


@pytest.mark.parametrize("size", [0, 20])
@pytest.mark.parametrize("source", ["proxy", "both"])
def test_validation_is_brute_force(data: DataSet, tmp_path: Path, source: str, size: int) -> None:
    """The fit, the metrics under it and both recalls, worked out over all labels."""
    training = make(data, tmp_path, source, neighbors={"size": size, "labels": 10})
    found = validate(training)
    evidence, listed = all_evidence(training, whole(training.held_features))
    truth = dense(training.held_truth.given) > 0
    features = evidence.features(training.label_counts)
    # Each half of the documents is measured by the fit to the other half.
    half = np.arange(len(truth)) % 2
    parts = [listed & (half == one)[:, None] for one in (0, 1)]
    first = blend.fit([(features[parts[0]], truth[parts[0]])])
    fits = [first, blend.fit([(features[parts[1]], truth[parts[1]])], start=first)]
    expected = blend.fit([(features[listed], truth[listed])], start=fits[0])
    scores = found.blend.log_odds(evidence, training.label_counts)
    again = expected.log_odds(evidence, training.label_counts)
    np.testing.assert_allclose(scores[listed], again[listed], rtol=0.01, atol=0.05)
    by_half = [fits[1 - one].log_odds(evidence, training.label_counts) for one in (0, 1)]
    scores = np.where(listed, np.where(half[:, None] == 0, *by_half), -np.inf)
    sums = training.sums.from_array(np.zeros_like(training.sums.as_array()))
    sums.update(np.argsort(-scores, axis=1, kind="stable")[:, :5], whole(training.held_truth.given))
    assert found.results == pytest.approx(sums.result(), abs=0.6)  # half a document of 120
    dense_only, _ = all_evidence(
        make(data, tmp_path / "0", source, neighbors={"size": 0}), whole(training.held_features)
    )
    recall = 100 * (dense_only.labels >= 0)[truth].mean()
    assert found.recall == pytest.approx(recall, abs=0.5)
    assert found.candidate_recall == pytest.approx(100 * listed[truth].mean(), abs=0.5)
    if size:
        assert found.candidate_recall > found.recall + 1
    else:
        assert found.candidate_recall == found.recall
    assert training.sums.documents == 0  # the yardstick itself stays empty


def test_the_fitted_score_beats_every_single_part_of_it(data: DataSet, tmp_path: Path) -> None:
    training = make(data, tmp_path, "both", neighbors={"size": 20})
    found = validate(training)
    evidence, listed = all_evidence(training, whole(training.held_features))
    truth = dense(training.held_truth.given) > 0
    results = {}
    features = evidence.features(training.label_counts)
    for place, name in enumerate(blend.NAMES):
        scores = np.where(listed, features[..., place], -np.inf)
        results[name] = 100 * truth[np.arange(len(truth)), scores.argmax(1)].mean()
    # The score is fitted to be likely, not to this metric: a document of 120 either way.
    assert found.results["P@1"] > max(results.values()) - 0.9
    assert found.results["P@1"] > results["cosine"] + 5
    assert found.results["P@1"] > results["logit"] + 5


def test_no_held_out_document_has_a_true_candidate(data: DataSet, tmp_path: Path) -> None:
    training = make(data, tmp_path, "proxy")
    features = training.held_features.slice(0, 3)
    unseen = Csr.from_lists([[int(np.flatnonzero(training.label_counts == 0)[0])]] * 3, 80)
    found = training.refresher.validate(features, Truth(unseen), training.lexical, training.sums)
    assert (found.recall, found.candidate_recall, found.results["P@1"]) == (0.0, 0.0, 0.0)
    assert np.isfinite(found.blend.weights).all()


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
        assert count_hits(lists, truth) == expected


def test_true_candidates_are_those_that_a_loop_finds() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        truth = random_csr(rng, 9, 15, 0.3, binary=True)
        lists = rng.integers(-1, 15, (9, 6)).astype(np.int32)
        held = dense(truth)
        found = true_candidates(lists, truth)
        for (row, place), label in np.ndenumerate(lists):
            assert found[row, place] == (label >= 0 and held[row, label] > 0)


def test_own_blocks_encode_every_document_once(data: DataSet, tmp_path: Path) -> None:
    training = make(data, tmp_path, "proxy")
    seen, expected = [], training.encoder.encode(whole(training.features)).half().numpy()
    for first, block in training.refresher.own_blocks(training.features, "encode"):
        assert block.dtype == np.float16
        np.testing.assert_allclose(
            block.astype(np.float32), expected[first : first + len(block)], rtol=2e-3, atol=1e-4
        )
        seen += range(first, first + len(block))
    assert seen == list(range(training.features.num_rows))
