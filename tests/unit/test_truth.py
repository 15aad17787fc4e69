"""Pairs that count neither way: against scores of filtered pairs taken out one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made import dense, make_config, random_csr, train
from trained import trained_run

from ray_xml.calibrate import held_out
from ray_xml.classifier import Candidates
from ray_xml.cli import main
from ray_xml.errors import DataSetError
from ray_xml.evaluation import baseline, evaluate
from ray_xml.metrics import MetricSums
from ray_xml.predictor import Predictor
from ray_xml.report_tally import tally
from ray_xml.run_data import metric_sums
from ray_xml.run_records import read_lines
from ray_xml.run_sections import DataSetConfig
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter
from ray_xml.truth import Truth


def with_filter(data: DataSet, path: Path, pairs: dict[str, Csr]) -> DataSet:
    """The same data set, with filters."""
    widths = {"num_features": data.meta.num_features, "num_labels": data.meta.num_labels}
    with DataSetWriter(path, name="made", **widths) as writer:
        for name in ("train", "test"):
            with writer.split(name, leave_out_empty=False) as split:
                split.append(data.split(name).features, data.split(name).labels)
        for name, rows in pairs.items():
            writer.write_filter(name, rows)
    return DataSet.open(path)


def both(one: Csr, other: Csr) -> Csr:
    """The entries of either."""
    found = (dense(one) != 0) | (dense(other) != 0)
    return Csr.from_lists([np.flatnonzero(row).tolist() for row in found], one.num_columns)


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(data, tmp_path_factory.mktemp("runs")).path


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return Predictor.load(run)


@pytest.fixture(scope="module")
def filtered(
    data: DataSet, predictor: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> DataSet:
    """A third of each split's true labels, the best prediction of every other test document, and
    chance pairs do not count; those of two documents leave them nothing."""
    rng = np.random.default_rng(3)
    pairs = {}
    for name in ("train", "test"):
        split = data.split(name)
        drawn = rng.random(split.labels.packed().nnz) < 1 / 3
        rows = split.labels.packed().row_of_entry()
        drawn |= rows < 2
        own = [[] for _ in range(split.num_documents)]
        for row, label in zip(rows[drawn], split.labels.packed().ids[drawn], strict=True):
            own[row].append(int(label))
        chance = random_csr(rng, split.num_documents, data.meta.num_labels, 0.03, binary=True)
        pairs[name] = both(Csr.from_lists(own, data.meta.num_labels), chance)
    best = predictor.predict_features(data.split("test").features, 1).labels[:, 0]
    first = [[int(one)] if row % 2 else [] for row, one in enumerate(best)]
    pairs["test"] = both(pairs["test"], Csr.from_lists(first, data.meta.num_labels))
    return with_filter(data, tmp_path_factory.mktemp("filtered") / "set", pairs)


def slow_results(listed: list[list[int]], split_truth: np.ndarray, sums: MetricSums) -> dict:
    width = max(sums.ks)
    rows = np.array([(row + [-1] * width)[:width] for row in listed])
    own = [np.flatnonzero(row).tolist() for row in split_truth]
    sums.update(rows, Csr.from_lists(own, split_truth.shape[1]))
    return sums.result()


def test_evaluation_removes_pairs_before_it_cuts_off(
    predictor: Predictor, filtered: DataSet
) -> None:
    split = filtered.split("test")
    left_out = dense(split.filtered) != 0
    # All candidates of each document in order, from which filtered pairs are struck.
    everything = predictor.predict_features(split.features, filtered.meta.num_labels).labels
    listed = [
        [int(label) for label in row if label >= 0 and not left_out[number, label]]
        for number, row in enumerate(everything)
    ]
    truth = (dense(split.labels) != 0) & ~left_out
    expected = slow_results(listed, truth, metric_sums(filtered, predictor.config.dataset))
    assert evaluate(predictor, filtered, "test") == pytest.approx(expected)
    assert tally(predictor, filtered, "test", predictor.config.dataset).metrics == pytest.approx(
        expected
    )
    found = tally(predictor, filtered, "test", predictor.config.dataset)
    np.testing.assert_array_equal(found.true, truth.sum(0))


def test_without_the_filter_figures_are_the_plain_ones(
    predictor: Predictor, filtered: DataSet, data: DataSet
) -> None:
    plain = evaluate(predictor, data, "test")
    assert evaluate(predictor, filtered, "test", filtered=False) == plain
    assert evaluate(predictor, filtered, "test")["P@1"] != plain["P@1"]
    config = DataSetConfig()
    assert baseline(filtered, "test", config, filtered=False) == baseline(data, "test", config)


def test_the_command_says_what_was_left_out(
    run: Path, predictor: Predictor, filtered: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(run), "--data", str(filtered.path)]
    for more, asked in (([], True), (["--no-filter"], False)):
        assert main([*command, "--json", *more]) == 0
        found = json.loads(capsys.readouterr().out)
        expected = evaluate(predictor, filtered, "test", filtered=asked)
        assert found == {key: round(value, 4) for key, value in expected.items()}
    pairs = filtered.split("test").filtered
    assert pairs is not None
    assert main(command) == 0
    assert f"{pairs.nnz:,} pairs of the filter are left out" in capsys.readouterr().out
    assert main([*command, "--no-filter"]) == 0
    assert f"{pairs.nnz:,} pairs of the filter are counted" in capsys.readouterr().out


def test_the_baseline_is_filtered_too(filtered: DataSet) -> None:
    split = filtered.split("test")
    left_out = dense(split.filtered) != 0
    order = np.argsort(-filtered.split("train").labels.column_counts(), kind="stable")
    listed = [[int(one) for one in order if not left_out[n, one]] for n in range(len(left_out))]
    sums = metric_sums(filtered, DataSetConfig())
    expected = slow_results(listed, (dense(split.labels) != 0) & ~left_out, sums)
    assert baseline(filtered, "test", DataSetConfig()) == pytest.approx(expected)


def test_parts_of_a_truth(filtered: DataSet) -> None:
    split = filtered.split("test")
    truth = Truth.of(split)
    expected = (dense(split.labels) != 0) & ~(dense(split.filtered) != 0)
    np.testing.assert_array_equal(dense(truth.labels) != 0, expected)
    np.testing.assert_array_equal(dense(truth.slice(7, 90).labels) != 0, expected[7:90])
    rows = np.array([5, 149, 0, 5])
    np.testing.assert_array_equal(dense(truth.take(rows).labels) != 0, expected[rows])
    assert not expected[:2].any()  # documents that lose all their labels stay
    assert truth.asked(5) == 5 + (dense(split.filtered) != 0).sum(1).max()


def test_a_filtered_candidate_makes_room(filtered: DataSet) -> None:
    truth = Truth(Csr.from_lists([[1], [4]], 9), Csr.from_lists([[1, 3, 8], []], 9))
    labels = np.array([[3, 5, 1, 7, 0], [1, 2, -1, -1, -1]], np.int32)
    scores = np.array([[5, 4, 3, 2, 1], [2, 1, -np.inf, -np.inf, -np.inf]], np.float32)
    found, kept = truth.best(labels, scores, 2)
    assert found.tolist() == [[5, 7], [1, 2]]
    assert kept.tolist() == [[4, 2], [2, 1]]
    found, kept = truth.best(labels, scores, 4)
    assert found.tolist() == [[5, 7, 0, -1], [1, 2, -1, -1]]
    assert kept[0].tolist() == [4, 2, 1, -np.inf]


def test_validation_in_training_is_filtered(
    filtered: DataSet, data: DataSet, tmp_path: Path
) -> None:
    """A filter that takes every true label of train leaves validation nothing to find."""
    config = make_config(training={"epochs": 2, "batch_size": 32, "cycle_epochs": 2})

    def validated(some: DataSet, name: str) -> dict[str, float]:
        train(some, config, tmp_path / name)
        return read_lines(tmp_path / name)[-1]["validation"]

    plain, found = validated(data, "plain"), validated(filtered, "some")
    assert found["P@1"] != plain["P@1"]
    everything = {"train": data.split("train").labels}
    nothing = validated(with_filter(data, tmp_path / "set", everything), "all")
    assert nothing["P@1"] == 0
    assert plain["P@1"] > 20


def test_calibration_looks_past_filtered_pairs(
    predictor: Predictor, filtered: DataSet, data: DataSet
) -> None:
    plain, found = held_out(predictor, data), held_out(predictor, filtered)
    assert found[2] == plain[2]
    # A third of the true labels, which are mostly among the best, is gone.
    assert found[1].sum() < 0.85 * plain[1].sum()


@pytest.mark.parametrize("negatives", ["union", "shortlist", "random"])
def test_filtered_pairs_are_no_negatives(negatives: str) -> None:
    labels, pairs = [[1], [2], []], [[1, 3, 7], [2], [0, 3]]
    shortlist = np.array([[3, 4], [3, 5], [3, 0]], np.int32)
    for low, high in ((0, 9), (2, 5), (5, 9)):
        made = Candidates.build(
            shortlist,
            Csr.from_lists(labels, 9),
            (low, high),
            torch.device("cpu"),
            negatives=negatives,
            documents=3,
            left_out=Csr.from_lists(pairs, 9),
        )
        ids = np.arange(low, high) if made.rows is None else low + made.rows.numpy()
        expected = {
            row * made.count + place
            for row in range(3)
            for place, label in enumerate(ids)
            if label in pairs[row] and label not in labels[row]
        }
        found = set() if made.left_out is None else set(made.left_out.tolist())
        assert found == expected, (low, high)


def test_a_damaged_filter_is_told(data: DataSet, filtered: DataSet, tmp_path: Path) -> None:
    pairs = {"test": filtered.split("test").filtered}
    made = with_filter(data, tmp_path / "set", pairs)
    made.verify()
    file = tmp_path / "set" / "test.filter"
    content = bytearray(file.read_bytes())
    content[40] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataSetError, match=r"test\.filter is damaged: its checksum"):
        DataSet.open(tmp_path / "set").verify()
    file.write_bytes(content[:-8])
    with pytest.raises(DataSetError, match=r"test\.filter is damaged: it has .* bytes"):
        DataSet.open(tmp_path / "set")
    assert data.split("test").filtered is None
