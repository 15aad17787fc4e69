"""What the benchmarks of new labels and of label texts take out of a data set."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from made import dense, whole

from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import hold_out_labels  # noqa: E402
import label_texts  # noqa: E402


@pytest.fixture(scope="module")
def sets(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSet, DataSet]:
    """The data set with five labels last, and without them."""
    folder = tmp_path_factory.mktemp("sets")
    held = hold_out_labels.choose(data, 5, 3, seed=0)
    hold_out_labels.write_sets(data, held, folder / "full", folder / "without")
    return DataSet.open(folder / "full"), DataSet.open(folder / "without")


def test_labels_are_held_out_and_their_documents_stay(
    data: DataSet, sets: tuple[DataSet, DataSet]
) -> None:
    held = hold_out_labels.choose(data, 5, 3, seed=0)
    counts = data.split("train").labels.column_counts()
    assert len(set(held.tolist())) == 5
    assert counts[held].min() >= 3
    kept = np.setdiff1d(np.arange(len(counts)), held)
    full, without = sets
    old = dense(whole(data.split("train").labels))
    assert np.array_equal(dense(full.split("train").labels), old[:, [*kept, *held]])
    rest = old[:, kept]
    assert np.array_equal(dense(without.split("train").labels), rest[rest.any(1)])
    features = dense(whole(data.split("train").features))
    assert np.array_equal(dense(without.split("train").features), features[rest.any(1)])
    assert without.meta.num_labels == len(kept)


def test_examples_have_the_label_that_they_are_of(sets: tuple[DataSet, DataSet]) -> None:
    full, without = sets
    found = hold_out_labels.examples(full, without, 3, seed=1)
    first = without.meta.num_labels
    assert found.labels.column_counts().tolist() == [3] * 5
    features, labels = (
        dense(getattr(full.split("train"), name)) for name in ("features", "labels")
    )
    for row, label in zip(dense(found.features), found.labels.ids.tolist(), strict=True):
        same = (features == row).all(1)
        assert labels[same, first + label].any()


def test_own_labels_and_mutual_pairs_are_left_out(tmp_path: Path) -> None:
    """Documents a, b, c, d name labels a, b, c, d; a and b each other."""
    names = ["a", "b", "c", "d"]
    truth = Csr.from_lists([[1, 2], [0], [3], [0, 1, 3]], 4)
    with DataSetWriter(tmp_path / "set", name="x", num_features=4, num_labels=4) as writer:
        for split in ("train", "test"):
            with writer.split(split, leave_out_empty=False) as out:
                out.append(Csr.from_lists([[i] for i in range(4)], 4, [[1.0]] * 4), truth)
        writer.write_label_names(names)
        lines = [json.dumps({"name": "", "summary": name}) + "\n" for name in ["a", "b", "c", "?"]]
        writer.write_lines("train_documents.jsonl", lines)
    data = DataSet.open(tmp_path / "set")
    assert label_texts.own_labels(data).tolist() == [0, 1, 2, -1]
    features = data.split("train").features
    kept = label_texts.without(features, truth, [{1}, {0}, set(), {0, 3}])
    assert dense(kept.labels).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]]
    assert kept.features.packed().ids.tolist() == [0, 2, 3]
    assert kept.left_out == [{1}, set(), {0, 3}]
