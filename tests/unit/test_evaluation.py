"""Measuring a model on a split, against sums worked out document by document."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_sets import make
from trained import trained_run

from ray_xml.errors import DataSetError
from ray_xml.evaluation import METRICS, baseline, evaluate
from ray_xml.predictor import Predictor
from ray_xml.run_sections import DataSetConfig
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter


@pytest.fixture(scope="module")
def predictor(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(trained_run(data, tmp_path_factory.mktemp("runs")).path)


def truth(data: DataSet, split: str) -> list[set[int]]:
    labels = data.split(split).labels
    return [set(labels.slice(i, i + 1).packed().ids.tolist()) for i in range(labels.num_rows)]


def slow_precision(listed: np.ndarray, true: list[set[int]], k: int) -> float:
    hits = [len(set(row[:k].tolist()) & own) for row, own in zip(listed, true, strict=True)]
    return 100 * sum(hits) / (k * len(true))


def slow_propensity_precision(
    listed: np.ndarray, data: DataSet, split: str, k: int, a: float, b: float
) -> float:
    """PSP@k of Jain et al., normalised by the best that could be had."""
    train = data.split("train")
    counts = np.zeros(data.meta.num_labels)
    for own in truth(data, "train"):
        counts[list(own)] += 1
    c = (np.log(train.num_documents) - 1) * (b + 1) ** a
    inverse = 1 + c * (counts + b) ** -a
    got = best = 0.0
    for row, own in zip(listed, truth(data, split), strict=True):
        got += sum(inverse[label] for label in row[:k].tolist() if label in own)
        best += sum(sorted((inverse[label] for label in own), reverse=True)[:k])
    return 100 * got / best


def test_against_slow_sums(predictor: Predictor, data: DataSet) -> None:
    results = evaluate(predictor, data, "test")
    listed = predictor.predict(data.split("test").features, 5).labels
    assert set(METRICS) <= set(results)
    for k in (1, 3, 5):
        assert results[f"P@{k}"] == pytest.approx(slow_precision(listed, truth(data, "test"), k))
        slow = slow_propensity_precision(listed, data, "test", k, 0.55, 1.5)
        assert results[f"PSP@{k}"] == pytest.approx(slow, rel=1e-5)
    assert results["P@1"] > 50  # the made set can be learnt


def test_the_config_s_constants_count(predictor: Predictor, data: DataSet) -> None:
    dataset = DataSetConfig(propensity_a=0.6, propensity_b=2.6)
    config = predictor.config.model_copy(update={"dataset": dataset})
    other = Predictor(replace(predictor.model, config=config))
    results = evaluate(other, data, "test")
    listed = predictor.predict(data.split("test").features, 5).labels
    slow = slow_propensity_precision(listed, data, "test", 5, 0.6, 2.6)
    assert results["PSP@5"] == pytest.approx(slow, rel=1e-5)


def test_the_model_beats_the_most_frequent_labels(predictor: Predictor, data: DataSet) -> None:
    results, plain = evaluate(predictor, data, "test"), baseline(data, "test", DataSetConfig())
    for key in ("P@1", "nDCG@5", "PSP@5", "R@5"):
        assert results[key] > plain[key] + 10, key


def test_the_baseline_gives_everybody_the_same_labels(data: DataSet) -> None:
    counts = data.split("train").labels.column_counts()
    best = np.argsort(-counts, kind="stable")[:5]
    listed = np.tile(best, (150, 1))
    expected = slow_precision(listed, truth(data, "test"), 5)
    assert baseline(data, "test", DataSetConfig())["P@5"] == pytest.approx(expected)


def test_progress_ends_at_the_last_document(predictor: Predictor, data: DataSet) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(predictor, data, "train", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (600, 600)
    assert seen == sorted(seen)


def test_what_cannot_be_measured_is_told(
    predictor: Predictor, data: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(DataSetError, match=r"has no split 'dev': it has train, test"):
        evaluate(predictor, data, "dev")
    make(tmp_path / "small")
    with pytest.raises(DataSetError, match="has 3 labels, the model 80"):
        evaluate(predictor, DataSet.open(tmp_path / "small"), "test")
    with DataSetWriter(tmp_path / "bare", name="bare", num_features=300, num_labels=80) as writer:
        for split in ("train", "test"):
            with writer.split(split, leave_out_empty=False) as part:
                rows = [[1, 2], [3]] if split == "train" else [[], []]
                part.append(
                    Csr.from_lists([[0], [1]], 300, [[1.0], [1.0]]), Csr.from_lists(rows, 80)
                )
    with pytest.raises(DataSetError, match="split 'test' has no labels to compare with"):
        evaluate(predictor, DataSet.open(tmp_path / "bare"), "test")
