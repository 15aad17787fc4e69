"""From candidate lists to predictions, against loops over documents."""

from __future__ import annotations

import numpy as np
import pytest

from ray_xml.label_search import Found
from ray_xml.scoring import candidates, top_k


def sigmoid(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-np.float64(x)))


def random_found(seed: int, sources: tuple[str, ...], n: int = 7, k: int = 5) -> Found:
    """Lists out of 12 labels whose scores are a function of document and label."""
    rng = np.random.default_rng(seed)
    cosine, logit = rng.uniform(-1, 1, (n, 12)), 4 * rng.standard_normal((n, 12))
    found = Found({}, {}, {})
    for source in sources:
        lists = np.stack([rng.permutation(12)[:k] for _ in range(n)]).astype(np.int32)
        lists[rng.random(lists.shape) < 0.2] = -1
        at = np.maximum(lists, 0)
        found.labels[source] = lists
        found.cosines[source] = np.take_along_axis(cosine, at, 1).astype(np.float32)
        found.logits[source] = np.take_along_axis(logit, at, 1).astype(np.float32)
    return found


@pytest.mark.parametrize("sources", [("proxy",), ("classifier",), ("proxy", "classifier")])
def test_candidates_name_each_label_once_with_its_scores(sources: tuple[str, ...]) -> None:
    found = random_found(1, sources)
    labels, by_classifier, by_proxy = candidates(found)
    assert by_classifier.dtype == by_proxy.dtype == np.float32
    for row in range(len(labels)):
        expected = {}
        for source in sources:
            for place, label in enumerate(found.labels[source][row].tolist()):
                if label >= 0:
                    expected[label] = (
                        sigmoid(found.logits[source][row, place]),
                        sigmoid(found.cosines[source][row, place]),
                    )
        named = [label for label in labels[row].tolist() if label >= 0]
        assert sorted(named) == sorted(expected)
        for place, label in enumerate(labels[row].tolist()):
            if label >= 0:
                scores = (by_classifier[row, place], by_proxy[row, place])
                assert scores == pytest.approx(expected[label], rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("k", [1, 4, 15])
def test_the_best_of_the_blend(beta: float, k: int) -> None:
    labels, by_classifier, by_proxy = candidates(random_found(2, ("proxy", "classifier")))
    best, scores = top_k(labels, by_classifier, by_proxy, beta, k)
    assert best.shape == scores.shape == (7, k)
    for row in range(7):
        blend = [
            (-(beta * a + (1 - beta) * b), label)
            for label, a, b in zip(
                labels[row].tolist(), by_classifier[row], by_proxy[row], strict=True
            )
            if label >= 0
        ]
        blend.sort()
        expected = [label for _, label in blend][:k]
        assert best[row].tolist() == expected + [-1] * (k - len(expected))
        np.testing.assert_allclose(
            scores[row, : len(expected)], [-score for score, _ in blend[:k]], rtol=1e-5
        )
        assert (scores[row, len(expected) :] == -np.inf).all()


def test_equal_scores_go_to_the_lower_label() -> None:
    labels = np.array([[9, 2, -1, 5]], np.int32)
    half = np.full((1, 4), 0.5, np.float32)
    assert top_k(labels, half, half, 0.3, 3)[0].tolist() == [[2, 5, 9]]


def test_extreme_logits_do_not_overflow() -> None:
    found = random_found(3, ("proxy",))
    found.logits["proxy"][:] = [-1e5, -200, 0, 200, 1e5]
    by_classifier = candidates(found)[1]
    np.testing.assert_allclose(by_classifier[0], [0, 0, 0.5, 1, 1], atol=1e-6)
