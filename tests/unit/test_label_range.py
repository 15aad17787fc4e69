"""Label ranges: one or several give the same proxies, sums and lists, and the true ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from made import dense, random_csr

from ray_xml.checkpoint import load_range
from ray_xml.label_range import LabelRange
from ray_xml.label_search import GIVEN, Found
from ray_xml.partition import Range
from ray_xml.proxies import identity_map
from ray_xml.ranges import Block, LocalRanges
from ray_xml.sparse import Csr

DOCUMENTS, LABELS, DIM, BLOCK = 90, 40, 8, 32
SOURCES = ("proxy", "classifier")
# The second cut has a range (30, 36) without a single document: labels 30 to 35 are unseen.
CUTS: list[list[Range]] = [[(0, 40)], [(0, 5), (5, 30), (30, 36), (36, 40)], [(0, 33), (33, 40)]]
UNSEEN = {7, *range(30, 36)}


def labels() -> Csr:
    """Rows in which some labels never occur, and 12 and 13, 1 and 38 always occur together."""
    held = dense(random_csr(np.random.default_rng(0), DOCUMENTS, LABELS, 0.08, binary=True)) > 0
    held[:, sorted(UNSEEN)] = False
    held[:, 13], held[:, 38] = held[:, 12], held[:, 1]
    return Csr.from_lists([np.flatnonzero(row).tolist() for row in held], LABELS)


def embeddings() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.maximum(rng.standard_normal((DOCUMENTS, DIM)), 0).astype(np.float16)


def blocks(z: np.ndarray, given: np.ndarray | None = None) -> Iterator[Block]:
    for first in range(0, len(z), BLOCK):
        part = slice(first, first + BLOCK)
        yield first, z[part], None if given is None else given[part]


def affine() -> torch.Tensor:
    noise = torch.randn(DIM, DIM + 1, generator=torch.Generator().manual_seed(2))
    return identity_map(DIM) + 0.2 * noise.double()


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Classifier weight [L, D] and bias [L]."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((LABELS, DIM)).astype(np.float32)
    bias = rng.standard_normal(LABELS).astype(np.float32)
    weight[13], bias[13] = weight[12], bias[12]
    return weight, bias


def make(cuts: list[Range], *, with_rows: bool = True) -> tuple[list[LabelRange], LocalRanges]:
    parts = [LabelRange(cut, labels()) for cut in cuts]
    ranges = LocalRanges(parts)
    ranges.begin_cycle(4)
    for first, block, _ in blocks(embeddings()):
        ranges.add_block(4, first, block)
    ranges.set_proxies(affine())
    if with_rows:
        weight, bias = rows()
        for first in (0, 17, 31):  # borders that are no range's
            last = {0: 17, 17: 31, 31: LABELS}[first]
            ranges.add_rows(first, weight[first:last], bias[first:last])
        ranges.index_rows()
    return parts, ranges


def expected_proxies() -> np.ndarray:
    held = dense(labels()).astype(np.float64)
    counts = held.sum(0)
    centroids = (held.T @ embeddings().astype(np.float64)) / np.maximum(counts, 1)[:, None]
    mapped = centroids @ affine()[:, :-1].numpy().T + affine()[:, -1].numpy()
    unit = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    unit[counts == 0] = 0
    return unit


@pytest.mark.parametrize("cuts", CUTS)
def test_proxies_are_unit_maps_of_mean_embeddings(cuts: list[Range]) -> None:
    parts, _ = make(cuts)
    found = np.concatenate([part.proxies() for part in parts])
    np.testing.assert_allclose(found, expected_proxies(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[12], found[13])
    np.testing.assert_array_equal(found[1], found[38])
    named = np.concatenate([part.labels for part in parts])
    assert named.tolist() == [label for label in range(LABELS) if label not in UNSEEN]


def brute_force(source: str, k: int) -> list[list[int]]:
    z = embeddings().astype(np.float64)
    seen = [label for label in range(LABELS) if label not in UNSEEN]
    if source == "proxy":
        scores = z @ np.concatenate([part.proxies() for part in make(CUTS[0])[0]]).T
    else:
        weight, bias = rows()
        scores = z @ weight.T.astype(np.float64) + bias
    scores = np.round(scores, 9)  # so that twins tie
    return [sorted(seen, key=lambda label: (-row[label], label))[:k] for row in scores]


def search(
    ranges: LocalRanges,
    k: int,
    sources: tuple[str, ...] = SOURCES,
    *,
    both_scores: bool = True,
    given: np.ndarray | None = None,
) -> Found:
    found = list(ranges.search(blocks(embeddings(), given), k, sources, both_scores))
    assert [first for first, _ in found] == [0, 32, 64]
    return Found(
        *(
            {
                source: np.concatenate([getattr(one, part)[source] for _, one in found])
                for source in found[0][1].labels
            }
            for part in ("labels", "cosines", "logits")
        )
    )


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("k", [1, 6, 33, 60])
def test_lists_are_brute_force_whatever_the_ranges(cuts: list[Range], k: int) -> None:
    found = search(make(cuts)[1], k)
    width = min(k, LABELS - len(UNSEEN))
    for source in SOURCES:
        lists = found.labels[source]
        assert lists.shape[1] <= k
        assert lists[:, :width].tolist() == brute_force(source, k)
        assert (lists[:, width:] == -1).all()
        assert not np.isin(lists, sorted(UNSEEN)).any()


@pytest.mark.parametrize("cuts", CUTS)
def test_scores_of_both_kinds(cuts: list[Range]) -> None:
    found = search(make(cuts)[1], 9)
    weight, bias = rows()
    z = embeddings().astype(np.float64)
    norms = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    cosines, logits = (z / norms) @ expected_proxies().T, z @ weight.T + bias
    for source in SOURCES:
        at = found.labels[source].astype(np.int64)
        for name, scores in (("cosines", cosines), ("logits", logits)):
            values = getattr(found, name)[source]
            np.testing.assert_allclose(
                values, np.take_along_axis(scores, at, 1), rtol=1e-4, atol=1e-5
            )


def test_everything_is_the_same_bit_for_bit_over_ranges() -> None:
    one = search(make(CUTS[0])[1], 12)
    for cuts in CUTS[1:]:
        found = search(make(cuts)[1], 12)
        for part in ("labels", "cosines", "logits"):
            for source in SOURCES:
                np.testing.assert_array_equal(
                    getattr(found, part)[source], getattr(one, part)[source]
                )


def given_labels() -> np.ndarray:
    """int32 [documents, 7]: labels of any range, some twice, some unseen, some none."""
    rng = np.random.default_rng(4)
    given = rng.integers(0, LABELS, (DOCUMENTS, 7), dtype=np.int32)
    given[rng.random(given.shape) < 0.2] = -1
    return given


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("sources", [("proxy",), SOURCES])
def test_given_labels_are_scored_where_they_live(
    cuts: list[Range], sources: tuple[str, ...]
) -> None:
    given = given_labels()
    found = search(make(cuts)[1], 5, sources, given=given)
    assert found.labels.keys() == {*sources, GIVEN}
    assert np.array_equal(found.labels[GIVEN], given)
    weight, bias = rows()
    z = embeddings().astype(np.float64)
    norms = np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    cosines, logits = (z / norms) @ expected_proxies().T, z @ weight.T + bias
    scored = (given >= 0) & ~np.isin(given, sorted(UNSEEN))
    assert scored.mean() < 0.8  # of both kinds there are some
    for name, scores in (("cosines", cosines), ("logits", logits)):
        expected = np.where(scored, np.take_along_axis(scores, np.maximum(given, 0), 1), 0.0)
        np.testing.assert_allclose(getattr(found, name)[GIVEN], expected, rtol=1e-4, atol=1e-5)
    # What was searched for is what it was without them.
    without = search(make(cuts)[1], 5, sources)
    for source in sources:
        np.testing.assert_array_equal(found.labels[source], without.labels[source])
        np.testing.assert_array_equal(found.logits[source], without.logits[source])


def test_given_labels_score_as_found_ones_bit_for_bit_over_ranges() -> None:
    """A label has one score, however it became a candidate and wherever it lives."""
    found = search(make(CUTS[0])[1], 9)
    for cuts in CUTS:
        again = search(make(cuts)[1], 1, given=found.labels["proxy"])
        for name in ("cosines", "logits"):
            np.testing.assert_array_equal(
                getattr(again, name)[GIVEN], getattr(found, name)["proxy"]
            )


def test_no_given_labels_at_all() -> None:
    found = search(make(CUTS[1])[1], 5, given=np.zeros((DOCUMENTS, 0), np.int32))
    assert found.labels[GIVEN].shape == found.logits[GIVEN].shape == (DOCUMENTS, 0)


def test_given_labels_without_classifier_rows_have_no_logit() -> None:
    found = search(make(CUTS[1], with_rows=False)[1], 5, ("proxy",), given=given_labels())
    assert (found.logits[GIVEN] == 0).all()
    assert (found.cosines[GIVEN] != 0).any()


@pytest.mark.parametrize("sources", [("proxy",), ("classifier",)])
def test_one_source_alone(sources: tuple[str, ...]) -> None:
    both = search(make(CUTS[1])[1], 5)
    alone = search(make(CUTS[1])[1], 5, sources, both_scores=False)
    assert alone.labels.keys() == set(sources)
    np.testing.assert_array_equal(alone.labels[sources[0]], both.labels[sources[0]])
    other = alone.logits if sources == ("proxy",) else alone.cosines
    assert (other[sources[0]] == 0).all()


def test_without_classifier_rows_the_logits_are_zero() -> None:
    _, ranges = make(CUTS[1], with_rows=False)
    found = search(ranges, 5, ("proxy",))
    assert (found.logits["proxy"] == 0).all()
    with pytest.raises(AssertionError, match="no classifier index"):
        search(ranges, 5)


def test_a_new_cycle_forgets_the_old_one() -> None:
    parts, ranges = make(CUTS[1])
    ranges.begin_cycle(5)
    with pytest.raises(AssertionError, match="block of cycle 4 reached cycle 5"):
        ranges.add_block(4, 0, embeddings())
    ranges.add_block(5, 0, embeddings()[:50])
    with pytest.raises(AssertionError, match="50 of 90"):
        ranges.pair_sums(identity_map(DIM))
    with pytest.raises(AssertionError, match="not fitted"):
        parts[0].proxies()


def test_read_only_embeddings_are_fine() -> None:
    z = embeddings()
    z.flags.writeable = False  # as they come out of Ray's object store
    part = LabelRange((0, LABELS), labels())
    part.begin_cycle(0)
    part.add_block(0, 0, z)
    part.pair_sums(affine())
    part.pair_gradient(affine(), 0, 0, 2)
    part.set_proxies(affine())
    part.search(z, 3, ("proxy",), False)


@pytest.mark.parametrize("cuts", CUTS)
def test_saved_proxies_are_read_back_over_any_range(cuts: list[Range], tmp_path) -> None:
    parts, ranges = make(cuts)
    ranges.save_proxies(tmp_path)
    whole = np.concatenate([part.proxies() for part in parts])
    for low, high in [(0, 40), (3, 34), (39, 40)]:
        found = load_range(tmp_path, "proxies", "proxies", (low, high))
        np.testing.assert_array_equal(found, whole[low:high])
