"""What a report counts on a split, against loops over documents and labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made import make_config, random_csr, train

from ray_xml.errors import DataSetError
from ray_xml.evaluation import evaluate
from ray_xml.label_table import LabelScores, bin_of, frequency_table, ranked
from ray_xml.predictor import Predictions, Predictor
from ray_xml.report_documents import chosen
from ray_xml.report_labels import rank_points
from ray_xml.report_scores import coverage_curve, threshold_curves
from ray_xml.report_tally import Tally, confused, tally
from ray_xml.store import DataSet


@pytest.fixture(scope="module")
def predictor(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """One that has learnt little, so that there is something to be wrong about."""
    run = tmp_path_factory.mktemp("runs") / "weak"
    config = make_config(
        training={"epochs": 6, "rate": 0.01}, encoder={"dim": 16}, neighbors={"size": 0}
    )
    train(data, config.model_copy(update={"data": str(data.path), "run": str(run)}), run)
    return Predictor.load(run)


@pytest.fixture(scope="module")
def found(predictor: Predictor, data: DataSet) -> Tally:
    return tally(predictor, data, "test", predictor.config.dataset)


@pytest.fixture(scope="module")
def listed(predictor: Predictor, data: DataSet) -> Predictions:
    return predictor.predict(data.split("test").features, 5)


@pytest.fixture(scope="module")
def truth(data: DataSet) -> list[set[int]]:
    labels = data.split("test").labels
    return [set(labels.slice(i, i + 1).packed().ids.tolist()) for i in range(labels.num_rows)]


def test_the_metrics_are_those_of_evaluate(
    found: Tally, predictor: Predictor, data: DataSet
) -> None:
    assert found.metrics == evaluate(predictor, data, "test")


def test_counts_of_labels(found: Tally, listed: Predictions, truth: list[set[int]]) -> None:
    for label in range(len(found.true)):
        places = [
            (row, place) for row, place in zip(*np.nonzero(listed.labels == label), strict=True)
        ]
        sure = [row for row, place in places if listed.scores[row, place] >= 0.5]
        assert found.true[label] == sum(label in own for own in truth)
        assert found.listed[label] == len(places)
        assert found.found[label] == sum(label in truth[row] for row, _ in places)
        assert found.chosen[label] == len(sure)
        assert found.chosen_right[label] == sum(label in truth[row] for row in sure)
    assert found.chosen_right.sum() > 30


def test_scores(found: Tally, listed: Predictions, truth: list[set[int]]) -> None:
    right = [[label in own for label in row] for row, own in zip(listed.labels, truth, strict=True)]
    assert found.every.count.sum() == listed.labels.size
    assert found.every.right.sum() == np.sum(right)
    assert found.first.count.sum() == len(truth)
    assert found.first_right.tolist() == [row[0] for row in right]
    assert np.array_equal(found.first_score, listed.scores[:, 0])


def test_confusions(found: Tally, listed: Predictions, truth: list[set[int]]) -> None:
    counted: Counter[tuple[int, int]] = Counter()
    for row, own in zip(listed.labels.tolist(), truth, strict=True):
        best = row[: len(own)]
        for given in set(best) - own:
            for missed in own - set(best):
                counted[given, missed] += 1
    rows = found.confusions.tolist()
    assert {(given, missed): times for given, missed, times in rows} == counted
    assert rows == sorted(rows, key=lambda row: (-row[2], row[0], row[1]))
    assert rows[0][2] >= 2


def test_confusions_of_short_lists_and_many_labels() -> None:
    rng = np.random.default_rng(3)
    rows = random_csr(rng, 60, 12, 0.4, binary=True)
    labels = np.array([rng.permutation(12)[:3] for _ in range(60)])
    labels[rng.random(60) < 0.3, 1:] = -1
    right = np.array(
        [
            [label in rows.slice(i, i + 1).packed().ids for label in row]
            for i, row in enumerate(labels)
        ]
    )
    expected = []
    for i, row in enumerate(labels.tolist()):
        own = rows.slice(i, i + 1).packed().ids.tolist()
        best = [label for label in row[: len(own)] if label >= 0]
        expected += [(a, b) for a in best if a not in own for b in own if b not in best]
    assert sorted(map(tuple, confused(labels, right, rows).tolist())) == sorted(expected)
    assert len(expected) > 50


def test_frequency_bins(
    found: Tally, data: DataSet, listed: Predictions, truth: list[set[int]]
) -> None:
    counts = data.split("train").labels.column_counts()
    plain = set(np.argsort(-counts, kind="stable")[:5].tolist())
    bins = frequency_table(found, counts)
    assert [(b.low, b.high) for b in bins][:3] == [(0, 0), (2, 3), (4, 7)]
    assert sum(b.labels for b in bins) == 80
    for one in bins:
        own = {label for label in range(80) if one.low <= counts[label] <= one.high}
        pairs = [(row, label) for row, labels in enumerate(truth) for label in labels & own]
        right = [label in listed.labels[row] for row, label in pairs]
        given = int(np.isin(listed.labels, list(own)).sum())
        assert (one.labels, one.pairs) == (len(own), len(pairs))
        assert one.recall == pytest.approx(100 * sum(right) / max(len(pairs), 1))
        assert one.plain == pytest.approx(
            100 * sum(label in plain for _, label in pairs) / max(len(pairs), 1)
        )
        assert one.precision == pytest.approx(100 * sum(right) / max(given, 1))
    assert max(b.plain for b in bins) > 0


def test_bins_are_powers_of_two() -> None:
    counts = np.array([0, 1, 2, 3, 4, 7, 8, 2**20 - 1, 2**20])
    assert bin_of(counts).tolist() == [0, 1, 2, 2, 3, 3, 4, 20, 21]


def test_scores_and_ranks_of_labels(
    found: Tally, listed: Predictions, truth: list[set[int]]
) -> None:
    scores = LabelScores.of(found)
    for label in range(80):
        has = {row for row, own in enumerate(truth) if label in own}
        said = set(np.nonzero((listed.labels == label) & (listed.scores >= 0.5))[0].tolist())
        if has and said:
            precision, recall = len(has & said) / len(said), len(has & said) / len(has)
            f1 = 2 * precision * recall / ((precision + recall) or 1)
            assert scores.precision[label] == pytest.approx(100 * precision)
            assert scores.f1[label] == pytest.approx(100 * f1)
    worst, best, enough = ranked(found, scores, 8)
    assert len(worst) == len(best) == 8
    assert not set(worst.tolist()) & set(best.tolist())
    assert (found.true >= enough).sum() >= 16
    judged = np.flatnonzero(found.true >= enough)
    rising = sorted(judged.tolist(), key=lambda one: (scores.recall[one], scores.f1[one]))
    assert scores.recall[worst].tolist() == [scores.recall[one] for one in rising[:8]]
    assert scores.recall[best].tolist() == [scores.recall[one] for one in rising[:-9:-1]]
    few = ranked(found, scores, 1000)
    assert len(set(few[0].tolist()) | set(few[1].tolist())) == len(few[0]) + len(few[1])


def test_curves_of_a_threshold(
    found: Tally, listed: Predictions, truth: list[set[int]], data: DataSet
) -> None:
    pairs = sum(map(len, truth))
    precision, recall, coverage = threshold_curves(found.every, found.first, pairs, len(truth))
    right = np.array(
        [[label in own for label in row] for row, own in zip(listed.labels, truth, strict=True)]
    )
    for place in (0, 100, 350):
        at = place / 1000
        above = listed.scores >= at
        expected = 100 * (right & above).sum() / above.sum()
        assert precision.points[place] == pytest.approx((at, expected))
        assert recall.points[place] == pytest.approx((at, 100 * (right & above).sum() / pairs))
        assert coverage.points[place] == pytest.approx((at, 100 * above.any(1).mean()))
    whole = coverage_curve(found.first, len(truth))[-1]
    assert whole == pytest.approx((100.0, 100 * right[:, 0].mean()))


def test_documents_that_are_shown(found: Tally) -> None:
    right, wrong, surest = chosen(found, 3, 0)
    assert found.first_right[right].all()
    assert not found.first_right[wrong].any()
    assert not found.first_right[surest].any()
    assert not set(wrong.tolist()) & set(surest.tolist())
    left = np.setdiff1d(np.flatnonzero(~found.first_right), wrong)
    assert found.first_score[surest[0]] == found.first_score[left].max()


def test_ranks_of_labels() -> None:
    counts = np.random.default_rng(0).zipf(1.5, 5000) - 1
    points = rank_points(counts)
    falling = sorted(counts.tolist(), reverse=True)
    assert len(points) <= 250
    assert points[0] == (1, falling[0])
    assert points[-1][0] == (counts > 0).sum()
    assert all(value == falling[int(rank) - 1] > 0 for rank, value in points)
    assert rank_points(np.zeros(3, np.int64)) == []


def test_what_cannot_be_measured_is_told(
    predictor: Predictor, data: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(DataSetError, match="has no split 'dev'"):
        tally(predictor, data, "dev", predictor.config.dataset)
