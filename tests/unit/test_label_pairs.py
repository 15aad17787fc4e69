"""Chunks of (label, document) pairs against a loop over labels, and their independence."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ray_xml import label_pairs
from ray_xml.label_pairs import each_chunk, row_sums
from ray_xml.sparse import Csr

DOCUMENTS, DIM = 70, 6
# Labels with none, one, a few, exactly a chunk's, one more, and several chunks' pairs.
COUNTS = [0, 0, 1, 3, 8, 9, 0, 20, 1, 1, 1, 1, 16, 0, 70, 2, 0]


def labels(counts: list[int] = COUNTS) -> Csr:
    """[labels, documents]; a label's documents follow from its place in ``COUNTS`` alone."""
    rows = []
    for label, count in enumerate(counts):
        drawn = np.random.default_rng([label, count]).permutation(DOCUMENTS)[:count]
        rows.append(np.sort(drawn).tolist())
    return Csr.from_lists(rows, DOCUMENTS)


def embeddings() -> Tensor:
    return torch.randn(DOCUMENTS, DIM, generator=torch.Generator().manual_seed(0))


def taker(most: int | None = None) -> Callable[[np.ndarray], Tensor]:
    """Gives embeddings, ``most`` of them at a time at most."""

    def take(documents: np.ndarray) -> Tensor:
        assert most is None or len(documents) <= most
        return embeddings()[torch.from_numpy(documents.astype(np.int64))]

    return take


def documents_of(pairs: Csr, label: int) -> np.ndarray:
    return pairs.ids[pairs.offsets[label] : pairs.offsets[label + 1]]


@pytest.mark.parametrize("pairs", [1, 3, 8, 19, 1000])
def test_chunks_are_all_pairs_in_order(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_pairs, "PAIRS", pairs)
    rows = labels()
    expected = [(one, d) for one in range(len(COUNTS)) for d in documents_of(rows, one).tolist()]
    seen: list[tuple[int, int]] = []
    reached = 0  # labels done
    for chunk in each_chunk(rows, taker(pairs)):
        assert chunk.low == reached
        assert chunk.high > chunk.low
        named = (chunk.label_of + chunk.low).tolist()
        assert all(chunk.low <= label < chunk.high for label in named)
        begin = len(seen)
        seen += expected[begin : begin + len(named)]
        assert [label for label, _ in seen[begin:]] == named
        documents = [document for _, document in seen[begin:]]
        assert torch.equal(chunk.embeddings, embeddings()[documents])
        done = len(seen) == rows.offsets[chunk.high]
        assert chunk.ends == done
        if done:
            reached = chunk.high
        else:
            assert chunk.high == chunk.low + 1  # only one label's pairs are ever cut
        check_sums(chunk, named, documents)
    assert reached == len(COUNTS)
    assert seen == expected


def check_sums(chunk: label_pairs.Chunk, named: list[int], documents: list[int]) -> None:
    weights = torch.rand(len(named), generator=torch.Generator().manual_seed(len(named)))
    plain = torch.zeros(chunk.high - chunk.low, DIM, dtype=torch.float64)
    weighted = plain.clone()
    for label, document, weight in zip(named, documents, weights.tolist(), strict=True):
        plain[label - chunk.low] += embeddings()[document].double()
        weighted[label - chunk.low] += weight * embeddings()[document].double()
    for found, expected in ((chunk.sums(), plain), (chunk.sums(weights), weighted)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pairs", [1, 3, 8, 19, 1000])
def test_row_sums_are_those_of_a_loop(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_pairs, "PAIRS", pairs)
    rows, reached = labels(), 0
    for low, high, sums in row_sums(rows, taker(pairs)):
        assert low == reached
        for label in range(low, high):
            expected = embeddings()[documents_of(rows, label).astype(np.int64)].double().sum(0)
            torch.testing.assert_close(sums[label - low].double(), expected, rtol=1e-5, atol=1e-5)
        reached = high
    assert reached == len(COUNTS)


def all_sums(rows: Csr) -> Tensor:
    parts = [sums for _, _, sums in row_sums(rows, taker())]
    return torch.cat(parts) if parts else torch.zeros(0, DIM)


@pytest.mark.parametrize("pairs", [3, 8, 1000])
def test_a_label_s_sum_is_the_same_to_the_bit_in_any_company(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_pairs, "PAIRS", pairs)
    rows = labels()
    whole = all_sums(rows)
    for cuts in ([0, 7, 8, 17], [0, 4, 5, 6, 15, 17], list(range(18))):
        parts = [all_sums(rows.slice(low, high)) for low, high in itertools.pairwise(cuts)]
        assert torch.equal(torch.cat(parts), whole)
    order = np.random.default_rng(0).permutation(len(COUNTS))
    assert torch.equal(all_sums(rows.take(order)), whole[torch.from_numpy(order)])


def test_no_labels_have_no_chunks() -> None:
    assert list(each_chunk(Csr.from_lists([], DOCUMENTS), taker())) == []
    (only,) = row_sums(Csr.from_lists([[], []], DOCUMENTS), taker())
    assert only[:2] == (0, 2)
    assert torch.equal(only[2], torch.zeros(2, DIM))
