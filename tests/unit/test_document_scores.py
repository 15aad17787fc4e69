"""Metrics by document: their sums are the metrics, their errors those of a bootstrap."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from made import random_csr

from ray_xml.document_scores import DocumentScores, differences
from ray_xml.metrics import MetricSums
from ray_xml.propensity import propensities
from ray_xml.sparse import Csr

LABELS, DOCUMENTS = 40, 400


def yardstick() -> MetricSums:
    counts = np.random.default_rng(0).integers(1, 200, LABELS)
    return MetricSums(1.0 / propensities(counts, 1000, 0.55, 1.5), counts)


def truth(seed: int = 1) -> Csr:
    return random_csr(np.random.default_rng(seed), DOCUMENTS, LABELS, 0.08, binary=True)


def guesses(rows: Csr, seed: int, wrong: float) -> np.ndarray:
    """[N, 5]: true labels first, each replaced by a random one with probability ``wrong``."""
    rng = np.random.default_rng(seed)
    made = np.empty((rows.num_rows, 5), np.int64)
    for row in range(rows.num_rows):
        own = rows.slice(row, row + 1).packed().ids
        listed = np.concatenate([rng.permutation(own), rng.permutation(LABELS)])
        listed = [label for label in listed if rng.random() > wrong or label not in own]
        made[row] = list(dict.fromkeys([*listed, *range(LABELS)]))[:5]
    return made


def scores(predicted: np.ndarray, rows: Csr, block: int = 64) -> DocumentScores:
    sums = yardstick()
    return DocumentScores.joined(
        [
            DocumentScores.of(sums.ks, sums.contributions(predicted[first : first + block], some))
            for first, some in rows.blocks(block)
        ]
    )


def ratio(one: DocumentScores, rows: np.ndarray) -> np.ndarray:
    """[M] in percent."""
    return 100.0 * one.tops[rows].sum(0, np.float64) / one.bottoms[rows].sum(0, np.float64)


def test_the_sums_are_the_metrics() -> None:
    rows, sums = truth(), yardstick()
    predicted = guesses(rows, 2, 0.5)
    sums.update(predicted, rows)
    result, one = sums.result(), scores(predicted, rows)
    assert set(one.names) == {
        f"{m}@{k}" for m in ("P", "nDCG", "PSP", "PSnDCG", "R") for k in (1, 3, 5)
    }
    everyone = ratio(one, np.arange(DOCUMENTS))
    for name, value in zip(one.names, everyone, strict=True):
        assert value == pytest.approx(result[name], rel=1e-5), name


def test_the_error_of_a_difference_is_that_of_a_bootstrap() -> None:
    rows = truth()
    first, second = (
        scores(guesses(rows, seed, wrong), rows) for seed, wrong in ((2, 0.5), (3, 0.4))
    )
    found = differences(first, second)
    rng = np.random.default_rng(7)
    drawn = []
    for _ in range(3000):
        some = rng.integers(0, DOCUMENTS, DOCUMENTS)
        drawn.append(ratio(second, some) - ratio(first, some))
    spread = np.std(drawn, axis=0)
    everyone = np.arange(DOCUMENTS)
    apart = ratio(second, everyone) - ratio(first, everyone)
    for place, name in enumerate(first.names):
        assert found[name].value == pytest.approx(apart[place], abs=1e-4), name
        assert found[name].error == pytest.approx(spread[place], rel=0.06), name
    # Pairing matters: the errors of the two by themselves are larger together.
    alone = np.hypot(first.errors()["P@5"], second.errors()["P@5"])
    assert found["P@5"].error < 0.99 * alone


def test_the_error_of_one_model_is_that_of_a_bootstrap() -> None:
    rows = truth()
    one = scores(guesses(rows, 2, 0.5), rows)
    rng = np.random.default_rng(8)
    drawn = [ratio(one, rng.integers(0, DOCUMENTS, DOCUMENTS)) for _ in range(3000)]
    for name, spread in zip(one.names, np.std(drawn, axis=0), strict=True):
        assert one.errors()[name] == pytest.approx(spread, rel=0.06), name


def test_of_means_it_is_the_paired_t_test_s() -> None:
    rows = truth()
    first, second = (scores(guesses(rows, seed, 0.5), rows) for seed in (2, 3))
    place = first.names.index("R@3")
    apart = second.tops[:, place].astype(float) - first.tops[:, place]
    expected = 100 * apart.std(ddof=1) / np.sqrt(DOCUMENTS)
    assert differences(first, second)["R@3"].error == pytest.approx(expected)


def test_what_is_no_difference_is_not_taken_for_one() -> None:
    """Of pairs of equally good models about 5 % are told apart."""
    rows = truth()
    models = [scores(guesses(rows, 1000 + n, 0.5), rows, DOCUMENTS) for n in range(13)]
    pairs = list(combinations(models, 2))
    sure = sum(differences(a, b)["P@1"].sure for a, b in pairs)
    assert sure <= 0.12 * len(pairs)
    better = scores(guesses(rows, 5, 0.1), rows)
    assert differences(models[0], better)["P@1"].sure


def test_other_documents_are_refused() -> None:
    first = scores(guesses(truth(), 2, 0.5), truth())
    other = scores(guesses(truth(2), 2, 0.5), truth(2))
    with pytest.raises(ValueError, match="same documents"):
        differences(first, other)
