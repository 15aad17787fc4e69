"""Neighbours' votes, against dense arithmetic over all documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made import dense, random_csr
from small_sets import assert_same

from ray_xml import cut_documents, neighbors
from ray_xml.cut_documents import cut
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.sparse import Csr
from ray_xml.votes import Votes

DOCUMENTS, QUERIES, FEATURES, LABELS = 40, 11, 25, 13


@pytest.fixture(autouse=True, params=[0, 60, 10**9])
def _small_blocks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(neighbors, "_SHORT", request.param)
    monkeypatch.setattr(cut_documents, "_BLOCK", 7)
    monkeypatch.setattr(neighbors, "_SEARCH_BLOCK", 4)


def documents(seed: int, rows: int = DOCUMENTS) -> Csr:
    """Random features, a few of them negative; some documents are empty."""
    found = random_csr(np.random.default_rng(seed), rows, FEATURES, 0.3)
    assert found.values is not None
    flip = np.random.default_rng(seed).random(found.nnz) < 0.9
    values = np.where(flip, np.abs(found.values), found.values)
    assert (found.counts == 0).any()
    return Csr(found.offsets, found.ids, values.astype(np.float32), FEATURES)


def labels() -> Csr:
    return random_csr(np.random.default_rng(2), DOCUMENTS, LABELS, 0.2, binary=True)


def slow_cut(x: np.ndarray, terms: int) -> np.ndarray:
    lengths = np.sqrt((x.astype(np.float64) ** 2).sum(1, keepdims=True))
    unit = np.divide(x, lengths, out=np.zeros(x.shape), where=lengths > 0)
    kept = np.zeros_like(unit)
    for row, values in enumerate(unit):
        for column in sorted(range(len(values)), key=lambda c: (-values[c], c))[:terms]:
            kept[row, column] = max(values[column], 0)
    return kept


def slow_votes(
    queries: np.ndarray, known: np.ndarray, held: np.ndarray, size: int
) -> list[tuple[dict[int, tuple[float, float]], float, float]]:
    """({label: (flat, sharp)}, flat total, sharp total) of each query."""
    answers = []
    for similarities in queries @ known.T:
        order = sorted(range(len(similarities)), key=lambda d: (-similarities[d], d))[:size]
        votes: dict[int, tuple[float, float]] = {}
        for document in order:
            flat, sharp = similarities[document] ** 2, similarities[document] ** 4
            for label in np.flatnonzero(held[document]) if flat > 0 else ():
                before = votes.get(int(label), (0.0, 0.0))
                votes[int(label)] = before[0] + flat, before[1] + sharp
        answers.append(
            (votes, float(sum(similarities[order] ** 2)), float(sum(similarities[order] ** 4)))
        )
    return answers


@pytest.mark.parametrize("terms", [1, 4, 100])
@pytest.mark.parametrize("weighted", [False, True])
def test_cut_documents(terms: int, weighted: bool) -> None:
    rows = documents(0)
    weights = np.random.default_rng(1).random(FEATURES, np.float32) if weighted else None
    found = cut(rows, terms, weights)
    x = dense(rows) * (1 if weights is None else weights)
    np.testing.assert_allclose(dense(found), slow_cut(x, terms), rtol=1e-5, atol=1e-7)
    assert found.counts.max() <= terms
    assert found.values is not None
    assert (found.values > 0).all()
    if terms == 100 and not weighted:
        lengths = np.linalg.norm(dense(found), axis=1)
        without_negatives = (dense(rows) >= 0).all(1) & (rows.counts > 0)
        np.testing.assert_allclose(lengths[without_negatives], 1, rtol=1e-5)
        assert (lengths < 0.999).any()


def test_cut_keeps_ids_ascending_and_takes_views() -> None:
    rows = documents(0)
    found = cut(rows.slice(5, 20), 4, None)
    assert_same(found, cut(rows, 4, None).slice(5, 20))
    for row in range(DOCUMENTS):
        alone, one = cut(rows.slice(row, row + 1), 4, None), cut(rows, 4, None).slice(row, row + 1)
        assert np.array_equal(alone.ids, one.packed().ids)
        np.testing.assert_allclose(alone.values, one.packed().values, rtol=1e-6)
    for row in range(15):
        own = found.slice(row, row + 1).packed().ids
        assert (np.diff(own) > 0).all()
    assert cut(rows.slice(3, 3), 4, None).num_rows == 0


def test_equal_features_are_cut_from_the_right() -> None:
    rows = Csr.from_lists([[2, 5, 7, 9]], 10)
    assert cut(rows, 2, None).ids.tolist() == [2, 5]


@pytest.mark.parametrize("size", [1, 5, 39, 1000])
@pytest.mark.parametrize("most", [3, 40])
def test_votes_against_dense_arithmetic(size: int, most: int) -> None:
    config = NeighborsConfig(size=size, labels=most, terms=6, idf="off")
    index = Neighbors.build(config, documents(0), labels())
    asked = documents(1, QUERIES)
    votes = index.vote(index.queries(asked))
    expected = slow_votes(
        slow_cut(dense(asked), 6), slow_cut(dense(documents(0)), 6), dense(labels()), size
    )
    assert votes.labels.shape == votes.flat.shape == votes.sharp.shape == (QUERIES, most)
    assert votes.labels.dtype == np.int32
    assert votes.flat.dtype == votes.sharp_total.dtype == np.float32
    for row, (found, flat_total, sharp_total) in enumerate(expected):
        assert votes.flat_total[row] == pytest.approx(flat_total, rel=1e-4)
        assert votes.sharp_total[row] == pytest.approx(sharp_total, rel=1e-4)
        order = sorted(found, key=lambda label: (-found[label][1], label))[:most]
        named = votes.labels[row].tolist()
        assert named == order + [-1] * (most - len(order))
        for place, label in enumerate(order):
            given = votes.flat[row, place], votes.sharp[row, place]
            assert given == pytest.approx(found[label], rel=1e-4)
        assert not votes.flat[row, len(order) :].any()
        assert not votes.sharp[row, len(order) :].any()
    empty = np.flatnonzero(asked.counts == 0)
    assert (votes.labels[empty] == -1).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_document_s_votes_do_not_depend_on_those_asked_with_it(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Neighbors.build(NeighborsConfig(size=5, labels=4, terms=6), documents(0), labels())
    asked = documents(1, QUERIES)
    queries = index.queries(asked)
    whole = index.vote(queries)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for first in range(0, QUERIES - 2, 2):
        part = index.vote(queries.slice(first, first + 3))
        for name in Votes.__dataclass_fields__:
            expected = getattr(whole, name)[first : first + 3]
            assert np.array_equal(getattr(part, name), expected), name
    for row in range(QUERIES):  # one alone is searched for in another way
        alone = index.vote(index.queries(asked.slice(row, row + 1)))
        assert np.array_equal(alone.labels[0], whole.labels[row])
        for name in Votes.__dataclass_fields__:
            ours, theirs = getattr(alone, name), getattr(whole, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours[0], theirs[row], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("rows", [1, 2])
def test_ties_go_to_the_earlier_document_and_the_lower_label(rows: int) -> None:
    known = Csr.from_lists([[0, 1]] * 4, 3)
    held = Csr.from_lists([[5, 6], [4], [1], [0]], 7)
    index = Neighbors.build(NeighborsConfig(size=2, labels=9, idf="off"), known, held)
    asked = Csr.from_lists([[0, 1]] * rows, 3)
    votes = index.vote(index.queries(asked))
    assert votes.labels.tolist() == [[4, 5, 6] + [-1] * 6] * rows
    np.testing.assert_allclose(votes.sharp[0, :3], 1, rtol=1e-6)
    fewer = NeighborsConfig(size=4, labels=2, idf="off")
    index = Neighbors.of_documents(fewer, index.documents, index.labels, None)
    votes = index.vote(index.queries(asked))
    assert votes.labels.tolist() == [[0, 1]] * rows


def test_similarities_too_small_to_square_are_none() -> None:
    """Their fourth powers are zero in float32, their squares are not."""
    known = Csr.from_lists([[0, 1], [0, 2], [0, 3]], 4, [[3e-7, 1], [1e-7, 1], [1, 1]])
    held = Csr.from_lists([[0, 3], [1], [2]], 4)
    index = Neighbors.build(NeighborsConfig(size=9, labels=4, idf="off"), known, held)
    asked = Csr.from_lists([[0, 3], [0]], 4, [[1e-6, 1], [1.0]])
    votes = index.vote(index.queries(asked))
    assert votes.labels.tolist() == [[2, -1, -1, -1], [2, -1, -1, -1]]
    alone = index.vote(index.queries(asked.slice(0, 1)))
    assert alone.labels.tolist() == [[2, -1, -1, -1]]
    np.testing.assert_allclose(votes.flat[:, 0], 0.5, rtol=1e-4)
    np.testing.assert_allclose(votes.sharp[:, 0], 0.25, rtol=1e-4)
    assert not votes.flat[:, 1:].any()


@pytest.mark.parametrize("idf", ["auto", "on", "off"])
@pytest.mark.parametrize("kind", ["weighted", "counted", "binary", "unit"])
def test_inverse_document_frequency(idf: Any, kind: str) -> None:
    """``auto`` weights where the values of a document are all equal."""
    rows = documents(0)
    values: np.ndarray | None = np.abs(rows.values) if rows.values is not None else None
    if kind == "counted":
        values = np.ones(rows.nnz, np.float32)
        values[::5] = 2
    elif kind == "binary":
        values = None
    elif kind == "unit":
        values = np.repeat(1 / np.sqrt(np.maximum(rows.counts, 1)), rows.counts).astype(np.float32)
    features = Csr(rows.offsets, rows.ids, values, FEATURES)
    index = Neighbors.build(NeighborsConfig(idf=idf, terms=5), features, labels())
    if idf == "on" or (idf == "auto" and kind in ("binary", "unit")):
        held = (dense(features) != 0).sum(0)
        assert index.weights is not None
        np.testing.assert_allclose(index.weights, np.log(41 / (1 + held)), rtol=1e-5)
        x = dense(features) * index.weights
    else:
        assert index.weights is None
        x = dense(features)
    np.testing.assert_allclose(dense(index.documents), slow_cut(x, 5), rtol=1e-4, atol=1e-6)
    # Queries are cut as documents are.
    assert_same(index.queries(features), index.documents)


def test_without_neighbours_nobody_votes() -> None:
    index = Neighbors.build(NeighborsConfig(size=0), documents(0), labels())
    votes = index.vote(index.queries(documents(1, QUERIES)))
    assert votes.labels.shape == votes.flat.shape == votes.sharp.shape == (QUERIES, 0)
    assert votes.flat_total.tolist() == votes.sharp_total.tolist() == [0] * QUERIES
    assert index.documents.nnz == 0
    np.testing.assert_array_equal(index.label_counts, dense(labels()).sum(0))


def test_no_documents_asked() -> None:
    index = Neighbors.build(NeighborsConfig(), documents(0), labels())
    votes = index.vote(index.queries(documents(1).slice(2, 2)))
    assert len(votes.labels) == len(votes.flat_total) == 0


def test_documents_without_labels_do_not_vote() -> None:
    nobody = Csr.from_lists([[]] * DOCUMENTS, LABELS)
    index = Neighbors.build(NeighborsConfig(labels=5), documents(0), nobody)
    votes = index.vote(index.queries(documents(1, QUERIES)))
    assert (votes.labels == -1).all()
    assert votes.labels.shape == (QUERIES, 5)
    assert not votes.flat.any()
    for row in range(QUERIES):
        alone = index.vote(index.queries(documents(1, QUERIES).slice(row, row + 1)))
        assert alone.labels.tolist() == [[-1] * 5]
    assert votes.flat_total.any()  # there are neighbours, but they have nothing to say


@pytest.mark.parametrize("size", [0, 5])
@pytest.mark.parametrize("idf", ["on", "off"])
def test_tensors_are_read_back(size: int, idf: Any) -> None:
    config = NeighborsConfig(size=size, idf=idf, labels=5, terms=6)
    made = Neighbors.build(config, documents(0), labels().slice(0, DOCUMENTS))
    again = Neighbors.from_tensors(config, made.tensors())
    assert_same(again.documents, made.documents)
    assert_same(again.labels, made.labels)
    asked = documents(1, QUERIES)
    one, other = made.vote(made.queries(asked)), again.vote(again.queries(asked))
    for name in Votes.__dataclass_fields__:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("postings.ids", lambda a: a + 1, "ids of postings are not all in 0..39"),
        ("labels.ids", lambda a: a - 1, "ids of labels are not all in 0..12"),
        ("postings.offsets", lambda a: a[::-1].copy(), "offsets of postings do not fit"),
        ("postings.offsets", lambda a: a + 1, "offsets of postings do not fit"),
        ("labels.offsets", lambda a: a[:-3], "40 documents, labels of 37"),
        ("labels.offsets", lambda a: a[:0], "offsets of labels do not fit"),
        ("postings.values", lambda a: a[1:], r"\d+ ids of postings, \d+ values"),
        ("weights", lambda a: a[1:], "weights are"),
        ("widths", lambda a: a[:1], "unpack"),
    ],
)  # fmt: skip
def test_damaged_tensors_are_refused(name: str, change: Any, message: str) -> None:
    config = NeighborsConfig(idf="on")
    named = Neighbors.build(config, documents(0), labels()).tensors()
    with pytest.raises(ValueError, match=message):
        Neighbors.from_tensors(config, {**named, name: change(named[name])})
    for missing in set(named) - {"weights"}:
        left = {key: value for key, value in named.items() if key != missing}
        with pytest.raises(KeyError, match=missing):
            Neighbors.from_tensors(config, left)


@pytest.mark.parametrize("idf", ["on", "off"])
@pytest.mark.parametrize("wrong", [-1, FEATURES, 2**30])
def test_ids_that_are_no_features_are_refused(wrong: int, idf: Any) -> None:
    """A damaged data set is to end in a message, not in foreign memory."""
    rows = documents(0)
    ids = rows.ids.copy()
    ids[9] = wrong
    spoilt = Csr(rows.offsets, ids, rows.values, FEATURES)
    for size in (0, 5):
        with pytest.raises(ValueError, match=r"ids of features are not all in 0\.\.24"):
            Neighbors.build(NeighborsConfig(size=size, idf=idf), spoilt, labels())
    Neighbors.build(NeighborsConfig(idf=idf), spoilt.slice(10, 40), labels().slice(10, 40))


def test_documents_and_labels_have_to_match() -> None:
    index = Neighbors.build(NeighborsConfig(), documents(0), labels())
    with pytest.raises(ValueError, match="40 documents, labels of 39"):
        Neighbors.of_documents(index.config, index.documents, index.labels.slice(0, 39), None)
    bare = replace(index.documents, values=None)
    with pytest.raises(ValueError, match="documents without weights"):
        Neighbors.of_documents(index.config, bare, index.labels, None)
    wrong = replace(index.documents, ids=index.documents.ids - 1)
    with pytest.raises(ValueError, match="ids of documents are not all in"):
        Neighbors.of_documents(index.config, wrong, index.labels, None)
