"""FAISS search and the merge of ranges against sorting all scores in Python, ties included."""

from __future__ import annotations

import numpy as np
import pytest

from ray_xml.partition import even
from ray_xml.shortlist import LabelIndex, ShortlistConfig, best_k

DIM = 16


def whole_numbers(seed: int, n: int, dim: int = DIM, span: int = 2) -> np.ndarray:
    """float32 [n, dim] whose products are exact, so that scores tie exactly and often."""
    rng = np.random.default_rng(seed)
    return rng.integers(-span, span + 1, (n, dim)).astype(np.float32)


def with_twins(seed: int, n: int, dim: int) -> np.ndarray:
    """float32 [n, dim] unit vectors, half of them copies of others, many of them of the same."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.permutation(n)[: n // 2]] = vectors[rng.integers(0, n // 10, n // 2)]
    return vectors


def brute_force(
    queries: np.ndarray, vectors: np.ndarray, labels: np.ndarray, k: int
) -> list[list[int]]:
    """Labels by falling score, then by rising number."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return [
        [int(label) for _, label in sorted(zip(-row, labels, strict=True))[:k]] for row in scores
    ]


def over_ranges(
    queries: np.ndarray,
    vectors: np.ndarray,
    labels: np.ndarray,
    k: int,
    parts: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Search by range and merge, as the label ranges do."""
    found, scores = [], []
    for low, high in even(len(labels), parts):
        index = LabelIndex(labels[low:high], vectors[low:high])
        places, part_scores = index.search(queries, k)
        found.append(np.append(index.labels, np.int32(-1))[places])
        scores.append(part_scores)
    merged = best_k(np.concatenate(found, 1), np.concatenate(scores, 1), k)
    return merged[0], merged[1]


@pytest.fixture(params=["float32", "float16", "float16 in small blocks"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What vectors are held in. The last makes searches and scores cross many blocks."""
    dtype, _, small = request.param.partition(" ")
    if small:
        monkeypatch.setattr("ray_xml.pair_scores.BLOCK", 37)
        monkeypatch.setattr("ray_xml.pair_scores._GATHERED", 50)
    return str(dtype)


@pytest.mark.parametrize("k", [1, 7, 99, 100, 101, 150])
@pytest.mark.parametrize("queries", [1, 19, 20, 60])
def test_search_is_brute_force_with_many_ties(k: int, queries: int, storage: str) -> None:
    labels = np.cumsum(np.random.default_rng(0).integers(1, 4, 400)).astype(np.int32)
    vectors, asked = whole_numbers(1, 400), whole_numbers(2, queries)
    index = LabelIndex(labels, vectors.astype(storage))
    places, scores = index.search(asked, k)
    assert labels[places].tolist() == brute_force(asked, vectors, labels, k)
    expected = np.take_along_axis(asked @ vectors.T, places.astype(np.int64), 1)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("k", [7, 150])
def test_the_merge_of_ranges_is_brute_force_with_many_ties(k: int) -> None:
    labels = np.arange(500, dtype=np.int32)
    vectors, asked = whole_numbers(3, 500), whole_numbers(4, 40)
    expected = brute_force(asked, vectors, labels, k)
    for parts in (1, 2, 5, 200):  # 200 ranges hold fewer labels than are asked for
        assert over_ranges(asked, vectors, labels, k, parts)[0].tolist() == expected


@pytest.mark.parametrize(
    ("queries", "n", "dim", "k"),
    # The last is large enough for FAISS to use matrix products, which round equal vectors
    # differently by where they lie.
    [(7, 300, 24, 20), (64, 700, 24, 120), (2048, 1500, 300, 40)],
)
def test_the_number_of_ranges_leaves_no_trace(
    queries: int, n: int, dim: int, k: int, storage: str
) -> None:
    labels = np.arange(n, dtype=np.int32)
    vectors = with_twins(5, n, dim).astype(storage)
    asked = np.random.default_rng(6).standard_normal((queries, dim)).astype(np.float32)
    one = over_ranges(asked, vectors, labels, k, 1)
    for parts in (2, 5):
        found, scores = over_ranges(asked, vectors, labels, k, parts)
        np.testing.assert_array_equal(found, one[0])
        np.testing.assert_array_equal(scores, one[1])
    # Within a list, the twins of a vector follow each other in label order.
    same = one[1][:, 1:] == one[1][:, :-1]
    assert same.any()
    assert (one[0][:, 1:] > one[0][:, :-1])[same].all()
    # And nobody is left out for a worse one: brute force up to rounding.
    exact = asked[:20].astype(np.float64) @ vectors.T.astype(np.float64)
    best = -np.sort(-exact, axis=1)[:, :k]
    np.testing.assert_allclose(one[1][:20], best, atol=1e-4)


def test_all_labels_alike(storage: str) -> None:
    labels = np.arange(3000, dtype=np.int32)
    index = LabelIndex(labels, np.ones((3000, DIM), storage))
    places, scores = index.search(np.ones((3, DIM), np.float32), 50)
    assert (scores == DIM).all()
    assert all(len(set(row)) == 50 for row in places.tolist())
    few = LabelIndex(labels[:1000], np.ones((1000, DIM), storage))
    assert few.search(np.ones((3, DIM), np.float32), 50)[0].tolist() == [list(range(50))] * 3


def test_fewer_labels_than_asked_for(storage: str) -> None:
    labels = np.array([4, 9, 11], np.int32)
    vectors, asked = whole_numbers(7, 3), whole_numbers(8, 5)
    places, scores = LabelIndex(labels, vectors.astype(storage)).search(asked, 6)
    assert places.shape == scores.shape == (5, 6)
    assert labels[places[:, :3]].tolist() == brute_force(asked, vectors, labels, 3)
    assert (places[:, 3:] == -1).all()
    assert (scores[:, 3:] == -np.inf).all()


def test_an_index_of_nothing(storage: str) -> None:
    index = LabelIndex(np.zeros(0, np.int32), np.zeros((0, DIM), storage))
    places, scores = index.search(whole_numbers(0, 4), 3)
    assert (places == -1).all()
    assert (scores == -np.inf).all()
    assert (index.kind, index.nbytes, index.dim) == ("flat", 0, DIM)
    assert index.recall(whole_numbers(0, 4), 3) == 1.0
    assert index.scores_at(whole_numbers(0, 4), places).tolist() == [[0.0] * 3] * 4


def test_no_queries() -> None:
    index = LabelIndex(np.arange(9, dtype=np.int32), whole_numbers(0, 9))
    places, scores = index.search(np.zeros((0, DIM), np.float32), 3)
    assert places.shape == scores.shape == (0, 3)


@pytest.mark.parametrize("writable", [True, False])
def test_the_vectors_are_those_handed_in(storage: str, writable: bool) -> None:
    vectors = with_twins(9, 50, 12).astype(storage)
    vectors.flags.writeable = writable  # those of a mapped file are not
    index = LabelIndex(np.arange(50, dtype=np.int32), vectors)
    assert index.vectors is vectors
    assert index.nbytes == vectors.nbytes
    asked = with_twins(10, 20, 12)
    exact = np.argsort(-(asked.astype(np.float64) @ vectors.T.astype(np.float64)), 1, "stable")
    np.testing.assert_array_equal(index.search(asked, 1)[0], exact[:, :1])


def test_scores_at_places(storage: str) -> None:
    vectors, asked = whole_numbers(1, 40), whole_numbers(2, 6)
    index = LabelIndex(np.arange(40, dtype=np.int32), vectors.astype(storage))
    places = np.random.default_rng(3).integers(-1, 40, (6, 9)).astype(np.int32)
    expected = np.take_along_axis(asked @ vectors.T, np.maximum(places, 0).astype(np.int64), 1)
    np.testing.assert_array_equal(index.scores_at(asked, places), expected)
    turned = np.asfortranarray(asked)  # not contiguous
    np.testing.assert_array_equal(index.scores_at(turned, places), expected)
    np.testing.assert_array_equal(index.search(turned, 5)[0], index.search(asked, 5)[0])


def plain_best_k(labels: list[int], scores: list[float], k: int) -> list[int]:
    held = [(-score, label) for label, score in zip(labels, scores, strict=True) if label >= 0]
    best = [label for _, label in sorted(held)[:k]]
    return best + [-1] * (min(k, len(labels)) - len(best))


@pytest.mark.parametrize("k", [1, 3, 8, 12, 20])
def test_best_k_is_a_sort(k: int) -> None:
    rng = np.random.default_rng(k)
    values = np.array([-3e38, -1, -1e-40, -0.0, 0.0, 1e-40, 0.5, 1, 3e38], np.float32)
    for _ in range(100):
        labels = np.stack([rng.permutation(30)[:12] for _ in range(6)]).astype(np.int32)
        labels[rng.random(labels.shape) < 0.2] = -1
        scores = rng.choice(values, labels.shape)
        extra = labels.astype(np.float64) * 2
        best, best_scores, followed = best_k(labels, scores, k, extra)
        expected = [
            plain_best_k(row.tolist(), (score + 0.0).tolist(), k)
            for row, score in zip(labels, scores, strict=True)
        ]
        assert best.tolist() == expected
        np.testing.assert_array_equal(followed, best * 2.0)
        assert (best_scores[best < 0] == -np.inf).all()
        for row in range(6):
            of = dict(zip(labels[row].tolist(), scores[row].tolist(), strict=True))
            assert [of[label] for label in best[row].tolist() if label >= 0] == [
                score
                for label, score in zip(best[row], best_scores[row].tolist(), strict=True)
                if label >= 0
            ]


def test_sources() -> None:
    assert ShortlistConfig(source="both").sources == ("proxy", "classifier")
    assert ShortlistConfig(source="proxy").sources == ("proxy",)
    assert ShortlistConfig(source="classifier").sources == ("classifier",)
