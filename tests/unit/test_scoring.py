"""From candidate lists to predictions, against loops over documents."""

from __future__ import annotations

import numpy as np
import pytest
from made import random_csr

from ray_xml.blend import Evidence
from ray_xml.label_search import GIVEN, Found
from ray_xml.lexical import Answer, Lexical
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.scoring import candidates, top_k
from ray_xml.sparse import Csr
from ray_xml.votes import Votes

DOCUMENTS, LABELS = 7, 12


def random_found(
    seed: int, sources: tuple[str, ...], k: int = 5, *, given: np.ndarray | None = None
) -> Found:
    """Lists whose scores are a function of document and label; behind the last, label −1 and −∞."""
    rng = np.random.default_rng(seed)
    shape = (DOCUMENTS, LABELS)
    cosine, logit = rng.uniform(-1, 1, shape), 4 * rng.standard_normal(shape)
    found = Found({}, {}, {})
    lists = {}
    for source in sources:
        lists[source] = np.stack([rng.permutation(LABELS)[:k] for _ in range(DOCUMENTS)])
        lists[source][rng.random((DOCUMENTS, k)) < 0.2] = -1
    if given is not None:
        lists[GIVEN] = given
    for source, labels in lists.items():
        at, missing = np.maximum(labels, 0), 0.0 if source == GIVEN else -np.inf
        found.labels[source] = labels.astype(np.int32)
        for into, score in ((found.cosines, cosine), (found.logits, logit)):
            values = np.where(labels < 0, missing, np.take_along_axis(score, at, 1))
            into[source] = values.astype(np.float32)
    return found


def lexical_answer() -> Answer:
    """What a small sparse channel says about some documents."""
    rng = np.random.default_rng(5)
    features, held = random_csr(rng, 30, 20), random_csr(rng, 30, LABELS, 0.3, binary=True)
    assert features.values is not None
    positive = Csr(features.offsets, features.ids, np.abs(features.values), 20)
    config = NeighborsConfig(size=10, labels=6, terms=8)
    lexical = Lexical.build(Neighbors.build(config, positive, held))
    return lexical.ask(positive.slice(0, DOCUMENTS))


def at(evidence: Evidence, row: int) -> dict[int, tuple[float, ...]]:
    """{label: its scores and votes} of a document; every label is there once."""
    named = [label for label in evidence.labels[row].tolist() if label >= 0]
    assert len(set(named)) == len(named)
    columns = [evidence.logits, evidence.cosines, evidence.flat, evidence.sharp]
    columns += [evidence.centroid, evidence.association]
    return {
        label: tuple(float(column[row, place]) for column in columns)
        for place, label in enumerate(evidence.labels[row].tolist())
        if label >= 0
    }


@pytest.mark.parametrize("sources", [("proxy",), ("classifier",), ("proxy", "classifier")])
def test_candidates_name_each_label_once_with_its_scores(sources: tuple[str, ...]) -> None:
    found = random_found(1, sources)
    evidence = candidates(found)
    assert evidence.logits.dtype == evidence.cosines.dtype == np.float32
    assert np.isfinite(evidence.logits).all()
    assert np.isfinite(evidence.cosines).all()
    for row in range(DOCUMENTS):
        expected = {}
        for source in sources:
            for place, label in enumerate(found.labels[source][row].tolist()):
                if label >= 0:
                    scores = (found.logits[source][row, place], found.cosines[source][row, place])
                    expected[label] = (*map(float, scores), 0.0, 0.0, 0.0, 0.0)
        assert at(evidence, row) == expected
    assert not evidence.flat_total.any()


@pytest.mark.parametrize("sources", [("proxy",), ("classifier",), ("proxy", "classifier")])
def test_a_label_that_was_voted_for_and_found_keeps_its_votes(sources: tuple[str, ...]) -> None:
    answer = lexical_answer()
    votes = answer.votes
    found = random_found(2, sources, given=votes.labels)
    evidence = candidates(found, answer)
    assert np.array_equal(evidence.flat_total, votes.flat_total)
    assert np.array_equal(evidence.sharp_total, votes.sharp_total)
    voted_and_found = 0
    for row in range(DOCUMENTS):
        expected: dict[int, list[float]] = {}
        for source in (*sources, GIVEN):
            for place, label in enumerate(found.labels[source][row].tolist()):
                scores = (found.logits[source][row, place], found.cosines[source][row, place])
                if label >= 0:
                    expected.setdefault(label, [*map(float, scores), 0.0, 0.0])
        for place, label in enumerate(votes.labels[row].tolist()):
            if label >= 0:
                assert votes.flat[row, place] > 0
                expected[label][2:] = float(votes.flat[row, place]), float(votes.sharp[row, place])
                voted_and_found += any(label in found.labels[source][row] for source in sources)
        fits = at(evidence, row)
        assert {label: one[:4] for label, one in fits.items()} == {
            label: tuple(one) for label, one in expected.items()
        }
        for label, one in fits.items():
            alone = answer.fits(np.full((DOCUMENTS, 1), label, np.int32))
            assert one[4:] == (float(alone[0][row, 0]), float(alone[1][row, 0]))
    assert voted_and_found > 5  # what this test is about does occur


def test_candidates_where_nobody_votes() -> None:
    answer = lexical_answer()
    found = random_found(3, ("proxy",), given=np.full((DOCUMENTS, 1), -1, np.int32))
    nobody = Answer(
        Votes(
            np.full((DOCUMENTS, 1), -1, np.int32),
            *np.zeros((2, DOCUMENTS, 1), np.float32),
            *np.zeros((2, DOCUMENTS), np.float32),
        ),
        answer._queries,
        answer._words,
    )
    evidence, alone = candidates(found, nobody), candidates(random_found(3, ("proxy",)))
    for row in range(DOCUMENTS):
        assert {label: one[:4] for label, one in at(evidence, row).items()} == {
            label: one[:4] for label, one in at(alone, row).items()
        }


@pytest.mark.parametrize("k", [1, 4, 15])
def test_the_best_by_score(k: int) -> None:
    labels = candidates(random_found(2, ("proxy", "classifier"))).labels
    given = np.random.default_rng(0).random(labels.shape, np.float32)
    best, scores = top_k(labels, given, k)
    assert best.shape == scores.shape == (DOCUMENTS, k)
    for row in range(DOCUMENTS):
        ordered = sorted(
            (-float(score), label)
            for label, score in zip(labels[row].tolist(), given[row], strict=True)
            if label >= 0
        )[:k]
        expected = [label for _, label in ordered]
        assert best[row].tolist() == expected + [-1] * (k - len(expected))
        assert scores[row, : len(expected)].tolist() == [-score for score, _ in ordered]
        assert (scores[row, len(expected) :] == -np.inf).all()


def test_equal_scores_go_to_the_lower_label() -> None:
    labels = np.array([[9, 2, -1, 5]], np.int32)
    assert top_k(labels, np.full((1, 4), 0.5, np.float32), 3)[0].tolist() == [[2, 5, 9]]
