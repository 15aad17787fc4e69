"""Label ranges: one or several give the same proxies, sums and lists, and the true ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from made import begin_cycle, dense, proxies_of, random_csr

from ray_xml import label_pairs, label_range, sparse
from ray_xml.checkpoint import load_range
from ray_xml.errors import StaleError
from ray_xml.hashing import hash_32
from ray_xml.label_range import LabelRange
from ray_xml.label_search import GIVEN, Found
from ray_xml.partition import Range
from ray_xml.proxies import PairSums, identity_map
from ray_xml.ranges import Block, LocalRanges
from ray_xml.shortlist import ShortlistConfig
from ray_xml.sparse import Csr, Subset

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


def make(
    cuts: list[Range], *, with_rows: bool = True, storage: Literal["float32", "float16"] = "float32"
) -> tuple[list[LabelRange], LocalRanges]:
    parts = [LabelRange(cut, labels(), ShortlistConfig(storage=storage)) for cut in cuts]
    ranges = LocalRanges(parts)
    cycle = begin_cycle(ranges, 4, embeddings(), block=BLOCK).set_proxies(affine())
    if with_rows:
        cycle.index_rows(*rows())
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
    parts, ranges = make(cuts)
    found = proxies_of(ranges, LABELS)
    np.testing.assert_allclose(found, expected_proxies(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[12], found[13])
    np.testing.assert_array_equal(found[1], found[38])
    named = np.concatenate([part.labels for part in parts])
    assert named.tolist() == [label for label in range(LABELS) if label not in UNSEEN]


def brute_force(source: str, k: int) -> list[list[int]]:
    z = embeddings().astype(np.float64)
    seen = [label for label in range(LABELS) if label not in UNSEEN]
    if source == "proxy":
        scores = z @ proxies_of(make(CUTS[0])[1], LABELS).T
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
    with pytest.raises(AssertionError, match="proxies took the place"):
        ranges.pair_sums(identity_map(DIM))
    other = np.ascontiguousarray(embeddings()[::-1])
    cycle = begin_cycle(ranges, 5, other)
    assert [part.state.cycle for part in parts if part.state] == [5] * 4
    with pytest.raises(AssertionError, match="not fitted"):
        proxies_of(ranges, LABELS)
    with pytest.raises(AssertionError, match="no proxy index"):
        search(ranges, 5)
    # What it answers now is what ranges answer that never met another cycle.
    fresh = LocalRanges([LabelRange(cut, labels()) for cut in CUTS[1]])
    alone = begin_cycle(fresh, 0, other)
    sums = [one.pair_sums(affine()) for one in (ranges, fresh)]
    assert torch.equal(sums[0].gram, sums[1].gram)
    assert torch.equal(sums[0].cross, sums[1].cross)
    for one in (cycle, alone):
        one.set_proxies(affine())
    np.testing.assert_array_equal(proxies_of(ranges, LABELS), proxies_of(fresh, LABELS))


def test_a_range_asks_for_a_cycle_and_for_all_of_its_documents() -> None:
    ranges = LocalRanges([LabelRange((0, LABELS), labels())])
    with pytest.raises(AssertionError, match="no cycle was begun"):
        ranges.pair_sums(affine())
    with pytest.raises(AssertionError, match="50 embeddings of 90"):
        begin_cycle(ranges, 0, embeddings()[:50])


def test_read_only_embeddings_are_fine() -> None:
    z = embeddings()
    z.flags.writeable = False  # as they come out of Ray's object store
    _, ranges = make(CUTS[0])
    found = [next(ranges.search([(0, one, None)], 3, SOURCES, True)) for one in (z, embeddings())]
    np.testing.assert_array_equal(found[0][1].labels["proxy"], found[1][1].labels["proxy"])


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("saved", [3, 1000])
def test_saved_proxies_are_read_back_over_any_range(
    cuts: list[Range], saved: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_range, "_SAVED", saved)
    make(cuts)[1].save_proxies(tmp_path)
    files = sum(-(-(high - low) // saved) for low, high in cuts)
    assert len(list(tmp_path.glob("proxies-*.safetensors"))) == files
    whole = load_range(tmp_path, "proxies", "proxies", (0, LABELS))
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, expected_proxies(), rtol=1e-4, atol=1e-5)
    assert (whole[sorted(UNSEEN)] == 0).all()
    for low, high in [(0, 40), (3, 34), (39, 40)]:
        found = load_range(tmp_path, "proxies", "proxies", (low, high))
        np.testing.assert_array_equal(found, whole[low:high])


def fitted_sums(chosen: set[int], g: torch.Tensor) -> tuple[np.ndarray, np.ndarray, float, int]:
    """(gram, cross, loss, pairs) over the pairs of some labels, one pair after another."""
    held, z = dense(labels()) > 0, embeddings().astype(np.float64)
    gram, cross = np.zeros((DIM + 1, DIM + 1)), np.zeros((DIM + 1, DIM))
    loss, pairs = 0.0, 0
    for label in sorted(chosen):
        centroid = np.append(z[held[:, label]].mean(0), 1.0)
        for document in np.flatnonzero(held[:, label]):
            distance = ((g.numpy() @ centroid - z[document]) ** 2).sum()
            weight = 1 / (1 + distance)
            gram += weight * np.outer(centroid, centroid)
            cross += weight * np.outer(centroid, z[document])
            loss, pairs = loss + np.log1p(distance), pairs + 1
    return gram, cross, loss, pairs


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("fit_labels", [1, 12, 33, 1000])
@pytest.mark.parametrize("pairs", [4, 8192])
def test_sums_are_those_of_the_labels_that_the_map_is_fitted_to(
    cuts: list[Range], fit_labels: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_pairs, "PAIRS", pairs)
    seen = sorted(set(range(LABELS)) - UNSEEN)
    share = fit_labels / len(seen)
    drawn = hash_32(label_range._CHOICE, torch.tensor(seen)).tolist()
    chosen = {label for label, one in zip(seen, drawn, strict=True) if one / 2**32 < share}
    if fit_labels >= len(seen):
        assert chosen == set(seen)
    elif fit_labels > 1:
        assert 0 < len(chosen) < len(seen)
    ranges = LocalRanges([LabelRange(cut, labels(), fit_labels=fit_labels) for cut in cuts])
    begin_cycle(ranges, 0, embeddings())
    found = ranges.pair_sums(affine())
    gram, cross, loss, count = fitted_sums(chosen, affine())
    assert found.pairs == count
    assert found.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(found.gram.numpy(), gram, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.cross.numpy(), cross, rtol=1e-5, atol=1e-5)
    # Parts of them together are all of them: the gradient of the loss, by autograd.
    parts = [ranges.pair_gradient(affine(), 3, part, 4) for part in range(4)]
    assert sum(pairs for _, pairs in parts) == count
    z, held = torch.from_numpy(embeddings()).double(), torch.from_numpy(dense(labels()) > 0)
    g = affine().requires_grad_()
    total = g.sum() * 0
    for label in chosen:
        own = z[held[:, label]]
        mapped = g @ torch.cat([own.mean(0), torch.ones(1)])
        total = total + torch.log1p((mapped - own).square().sum(1)).sum()
    total.backward()
    torch.testing.assert_close(sum(one for one, _ in parts), g.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cuts", CUTS[1:])
def test_sums_leave_no_trace_of_ranges_or_chunks(
    cuts: list[Range], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sums(cuts: list[Range]) -> PairSums:
        ranges = LocalRanges([LabelRange(cut, labels(), fit_labels=20) for cut in cuts])
        begin_cycle(ranges, 0, embeddings())
        return ranges.pair_sums(affine())

    whole = sums(CUTS[0])
    monkeypatch.setattr(label_pairs, "PAIRS", 5)
    found = sums(cuts)
    assert found.pairs == whole.pairs
    assert found.loss == pytest.approx(whole.loss, rel=1e-7)
    torch.testing.assert_close(found.gram, whole.gram, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.cross, whole.cross, rtol=1e-6, atol=1e-6)


def test_float16_vectors_give_the_same_lists_up_to_rounding() -> None:
    full, half = make(CUTS[1]), make(CUTS[1], storage="float16")
    proxies = proxies_of(half[1], LABELS)
    assert proxies.dtype == np.float16
    np.testing.assert_allclose(
        proxies.astype(np.float32), proxies_of(full[1], LABELS), rtol=5e-3, atol=2e-3
    )
    one, other = search(full[1], 33), search(half[1], 33)
    for source, name in (("proxy", "cosines"), ("classifier", "logits")):
        lists = [found.labels[source] for found in (one, other)]
        by_label = np.argsort(lists[0], 1), np.argsort(lists[1], 1)
        scores = [
            np.take_along_axis(getattr(found, name)[source], order, 1)
            for found, order in zip((one, other), by_label, strict=True)
        ]
        # All 33 seen labels are listed, so by label the scores face each other.
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-2, atol=1e-2)
        # Where two lists differ, the scores at that place are nearly equal.
        differ = lists[0] != lists[1]
        assert differ.mean() < 0.1
        np.testing.assert_allclose(
            getattr(one, name)[source][differ],
            getattr(other, name)[source][differ],
            rtol=1e-2,
            atol=1e-2,
        )


def test_labels_may_be_a_part_of_those_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some rows of a larger matrix, in another order, taken a few at a time."""
    monkeypatch.setattr(sparse, "_ROWS", 7)
    monkeypatch.setattr(sparse, "_ENTRIES", 11)
    order = np.random.default_rng(7).permutation(2 * DOCUMENTS)[:DOCUMENTS]
    lists = [[38] for _ in range(2 * DOCUMENTS)]
    for place, row in enumerate(order):
        lists[row] = labels().slice(place, place + 1).packed().ids.tolist()
    subset = Subset(Csr.from_lists(lists, LABELS), order)
    ranges = LocalRanges([LabelRange(cut, subset) for cut in CUTS[1]])
    begin_cycle(ranges, 0, embeddings()).set_proxies(affine())
    expected = make(CUTS[1], with_rows=False)[1]
    np.testing.assert_array_equal(proxies_of(ranges, LABELS), proxies_of(expected, LABELS))


def test_rows_replace_those_of_before() -> None:
    _, ranges = make(CUTS[1])
    weight, bias = rows()
    cycle = begin_cycle(ranges, 5, embeddings()).set_proxies(affine())
    cycle.index_rows(-weight.astype(np.float16), -bias.astype(np.float16))
    found = search(ranges, 5, ("classifier",))
    z = embeddings().astype(np.float64)
    logits = z @ -weight.astype(np.float16).T.astype(np.float64) - bias.astype(np.float16)
    at = found.labels["classifier"].astype(np.int64)
    np.testing.assert_allclose(
        found.logits["classifier"], np.take_along_axis(logits, at, 1), rtol=1e-4, atol=1e-4
    )
    logits[:, sorted(UNSEEN)] = -np.inf
    np.testing.assert_allclose(
        found.logits["classifier"], -np.sort(-logits, 1)[:, :5], rtol=1e-4, atol=1e-4
    )


def test_documents_are_searched_for_by_number() -> None:
    """Their embeddings are those of the file; numbers may come in any order."""
    _, ranges = make(CUTS[1])
    numbers = np.random.default_rng(6).permutation(DOCUMENTS)[:41]
    given = given_labels()[numbers]
    by_number, by_row = (
        next(ranges.search([(7, what, given)], 6, SOURCES, True))
        for what in (numbers, embeddings()[numbers])
    )
    assert by_number[0] == by_row[0] == 7
    for part in ("labels", "cosines", "logits"):
        for source in (*SOURCES, GIVEN):
            np.testing.assert_array_equal(
                getattr(by_number[1], part)[source], getattr(by_row[1], part)[source]
            )


# ---- states ----


def test_a_range_that_lost_everything_reads_it_again() -> None:
    _, ranges = make(CUTS[1], with_rows=False)
    cycle = begin_cycle(ranges, 6, embeddings()).set_proxies(affine()).index_rows(*rows())
    expected = search(ranges, 7)
    anew = LocalRanges([LabelRange(cut, labels()) for cut in CUTS[1]])
    built = anew.bring(cycle.state)
    assert [one.source for one in built] == ["proxy", "classifier"] * 4
    assert anew.bring(cycle.state) == []
    found = search(anew, 7)
    for part in ("labels", "cosines", "logits"):
        for source in SOURCES:
            np.testing.assert_array_equal(
                getattr(found, part)[source], getattr(expected, part)[source]
            )


def test_files_of_another_cycle_are_refused() -> None:
    _, ranges = make(CUTS[0], with_rows=False)
    cycle = begin_cycle(ranges, 6, embeddings()).set_proxies(affine())
    state = cycle.state
    assert state.affine is not None
    anew = LocalRanges([LabelRange((0, LABELS), labels())])
    with pytest.raises(StaleError, match="of cycle 6, but cycle 8 is going on"):
        anew.bring(replace(state, cycle=8))
    with pytest.raises(StaleError, match="the map of cycle 6 cannot be read"):
        anew.bring(replace(state, affine=state.affine.with_name("nothing")))
    state.affine.write_bytes(state.affine.read_bytes()[:-1])
    with pytest.raises(StaleError, match="the map of cycle 6 cannot be read"):
        anew.bring(state)
    state.embeddings.path.write_bytes(b"short")
    with pytest.raises(StaleError, match=r"labels 0\.\.40 cannot get cycle 6 back: .* 5 bytes"):
        anew.bring(state)
    state.embeddings.path.unlink()
    with pytest.raises(StaleError, match=r"cannot get cycle 6 back: .*No such file"):
        anew.bring(state)
    # Whoever has it all needs no files.
    assert ranges.bring(state) == []


def test_a_range_does_not_go_back() -> None:
    _, ranges = make(CUTS[0])
    later = begin_cycle(ranges, 5, embeddings())
    with pytest.raises(
        StaleError, match=r"labels 0\.\.40 hold cycle 5, but were asked for cycle 4"
    ):
        begin_cycle(ranges, 4, embeddings())
    assert ranges.bring(later.state) == []
