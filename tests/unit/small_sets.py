"""A small data set for the tests, and how to compare sparse rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ray_xml.sparse import Csr
from ray_xml.store_meta import DataSetMeta
from ray_xml.store_write import DataSetWriter

FEATURES = Csr.from_lists([[0, 2], [], [1], [3]], 5, [[1, 2], [], [3], [4]])
LABELS = Csr.from_lists([[1], [0], [], [0, 2]], 3)


def make(
    path: Path, *, overwrite: bool = False, name: str = "small", scale: int = 1
) -> DataSetMeta:
    values = FEATURES.values
    assert values is not None
    features = Csr(FEATURES.offsets, FEATURES.ids, values * np.float32(scale), 5)
    with DataSetWriter(
        path, name=name, num_features=5, num_labels=3, overwrite=overwrite
    ) as writer:
        with writer.split("train", leave_out_empty=True) as split:
            split.append(features, LABELS)
        with writer.split("test", leave_out_empty=False) as split:
            split.append(features.slice(0, 1), LABELS.slice(0, 1))
            split.append(features.slice(1, 4), LABELS.slice(1, 4))  # offsets not from 0
        writer.write_label_names(["a", "b\u2028 b", "ü"])
        writer.write_text_file("vectoriser.json", "{}\n")
    assert writer.meta is not None
    return writer.meta


def assert_same(left: Csr, right: Csr) -> None:
    left, right = left.packed(), right.packed()
    assert np.array_equal(left.offsets, right.offsets)
    assert np.array_equal(left.ids, right.ids)
    assert left.num_columns == right.num_columns
    if right.values is None:
        assert left.values is None
    else:
        assert np.array_equal(left.values, right.values)


def begin(path: Path, overwrite: bool = False) -> DataSetWriter:
    return DataSetWriter(path, name="x", num_features=5, num_labels=3, overwrite=overwrite)
