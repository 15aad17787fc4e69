"""What features say of labels, against dense sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made import dense, random_csr

from ray_xml import label_words
from ray_xml.label_words import LabelWords, count_words
from ray_xml.neighbors import cut
from ray_xml.sparse import Csr

DOCUMENTS, QUERIES, FEATURES, LABELS = 40, 11, 25, 13


def documents(seed: int, rows: int = DOCUMENTS) -> Csr:
    found = random_csr(np.random.default_rng(seed), rows, FEATURES, 0.3)
    assert found.values is not None
    return cut(Csr(found.offsets, found.ids, np.abs(found.values), FEATURES), 9, None)


def labels() -> Csr:
    """Label 4 has no document, label 5 only documents without features."""
    rows, empty = documents(0), documents(0).counts == 0
    held = dense(random_csr(np.random.default_rng(2), DOCUMENTS, LABELS, 0.2, binary=True)) > 0
    held[:, 4], held[:, 5] = False, empty
    assert rows.num_rows == DOCUMENTS
    assert empty.any()
    return Csr.from_lists([np.flatnonzero(row).tolist() for row in held], LABELS)


def candidates(seed: int = 3, width: int = 6) -> np.ndarray:
    """int32 [queries, width], some −1, some twice."""
    return np.random.default_rng(seed).integers(-1, LABELS, (QUERIES, width), dtype=np.int32)


def slow(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """(centroid, association) [queries, labels] of all labels."""
    x, y = dense(documents(0)).astype(np.float64), dense(labels())
    counts = np.zeros((LABELS, FEATURES))
    for label in range(LABELS):
        sums = x[y[:, label] > 0].sum(0)
        for feature in sorted(range(FEATURES), key=lambda t: (-sums[t], t))[:terms]:
            counts[label, feature] = sums[feature]
    lengths, totals = np.linalg.norm(counts, axis=1), x.sum(0)
    centroids = np.divide(counts.T, lengths, out=np.zeros(counts.T.shape), where=lengths > 0)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    asked = dense(documents(1, QUERIES)).astype(np.float64)
    return asked @ centroids, asked @ shares.T


@pytest.mark.parametrize(
    ("products", "pairs", "slots"), [(1 << 24, 8192, 1024), (30, 7, 4), (1, 1, 1)]
)
@pytest.mark.parametrize("terms", [1, 5, 100])
def test_against_dense_sums(
    terms: int, products: int, pairs: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_words, "_PRODUCTS", products)
    monkeypatch.setattr(label_words, "_PAIRS", pairs)
    monkeypatch.setattr(label_words, "_SLOTS", slots)
    blocks = list(count_words(documents(0), labels(), terms))
    assert (len(blocks) == 1) == (products > 30)
    words = LabelWords.build(documents(0), labels(), terms)
    listed = candidates()
    found = words.scores(documents(1, QUERIES), listed)
    for row in range(QUERIES):  # one alone is scored in another way
        alone = words.scores(documents(1, QUERIES).slice(row, row + 1), listed[row : row + 1])
        for ours, theirs in zip(alone, found, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours[0], theirs[row], rtol=1e-5)
    for scores, expected in zip(found, slow(terms), strict=True):
        assert scores.dtype == np.float32
        assert scores.shape == listed.shape
        for (row, place), label in np.ndenumerate(listed):
            want = 0.0 if label < 0 else expected[row, label]
            assert scores[row, place] == pytest.approx(want, rel=1e-4, abs=1e-6)
        assert (scores > 0).mean() > 0.1


def test_a_document_of_one_label_alone_is_its_centroid() -> None:
    rows = Csr.from_lists([[0, 1], [2]], 3, [[0.6, 0.8], [1.0]])
    words = LabelWords.build(rows, Csr.from_lists([[0], [1]], 2), 10)
    centroid, association = words.scores(rows, np.array([[0, 1], [1, 0]], np.int32))
    np.testing.assert_allclose(centroid, [[1, 0], [1, 0]], rtol=1e-6)
    # Each feature lies in one label only, so it is association times the document's weight.
    np.testing.assert_allclose(association, [[1.4, 0], [1, 0]], rtol=1e-6)


def test_no_candidates_and_no_documents() -> None:
    words = LabelWords.build(documents(0), labels(), 5)
    queries = documents(1, QUERIES)
    for scores in words.scores(queries, candidates(width=0)):
        assert scores.shape == (QUERIES, 0)
    for scores in words.scores(queries.slice(0, 0), candidates()[:0]):
        assert scores.shape == (0, 6)
    for scores in words.scores(queries, np.full((QUERIES, 2), -1, np.int32)):
        assert scores.tolist() == [[0, 0]] * QUERIES


def test_an_index_without_a_feature_says_nothing() -> None:
    bare = Csr.from_lists([[]] * DOCUMENTS, FEATURES, [[]] * DOCUMENTS)
    words = LabelWords.build(bare, labels(), 5)
    for scores in words.scores(documents(1, QUERIES), candidates()):
        assert not scores.any()


def test_no_labels() -> None:
    words = LabelWords.build(documents(0), Csr.from_lists([[]] * DOCUMENTS, 0), 5)
    assert (words.num_labels, words.num_features) == (0, FEATURES)
    for scores in words.scores(documents(1, QUERIES), np.full((QUERIES, 3), -1, np.int32)):
        assert not scores.any()


def spoilt(counts: Csr) -> Csr:
    return replace(counts, ids=counts.ids + FEATURES)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda words: (spoilt(words.counts), words.scale, words.share), "ids of words"),
        (lambda words: (replace(words.counts, values=None), words.scale, words.share), "words are"),
        (lambda words: (words.counts, words.scale[1:], words.share), "words are"),
        (lambda words: (words.counts, words.scale, words.share[1:]), "words are"),
    ],
)  # fmt: skip
def test_damaged_counts_are_refused(spoil: Any, message: str) -> None:
    words = LabelWords.build(documents(0), labels(), 100)
    assert LabelWords(words.counts, words.scale, words.share).num_labels == LABELS
    with pytest.raises(ValueError, match=message):
        LabelWords(*spoil(words))
