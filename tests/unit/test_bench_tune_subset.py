"""The part of a data set that a search runs on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made import dense, whole

from ray_xml.errors import ConfigError
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from tune_subset import drawn_rows, make_subset  # noqa: E402


def test_it_is_the_drawn_documents_and_all_of_the_test_split(data: DataSet, tmp_path: Path) -> None:
    meta = make_subset(data, tmp_path / "part", 100, seed=3)
    part = DataSet.open(tmp_path / "part")
    part.verify()
    assert meta == part.meta
    assert (part.meta.name, part.meta.num_labels) == (data.meta.name, data.meta.num_labels)
    assert part.meta.splits["test"] == data.meta.splits["test"]  # its checksum too
    rows = drawn_rows(600, 100, 3)
    assert len(set(rows.tolist())) == 100
    assert rows.tolist() == sorted(rows.tolist())
    for kind in ("features", "labels"):
        taken, all_rows = getattr(part.split("train"), kind), getattr(data.split("train"), kind)
        np.testing.assert_array_equal(dense(taken), dense(whole(all_rows))[rows])


def test_the_seed_decides(data: DataSet, tmp_path: Path) -> None:
    checksums = [
        make_subset(data, tmp_path / str(number), 50, seed).checksum
        for number, seed in enumerate((0, 0, 1))
    ]
    assert checksums[0] == checksums[1] != checksums[2]


def test_names_and_other_files_come_along(tmp_path: Path) -> None:
    rows = Csr.from_lists([[0], [1], [0, 1]], 2, [[1.0], [2.0], [3.0, 4.0]])
    labels = Csr.from_lists([[0], [2], [1]], 3)
    with DataSetWriter(tmp_path / "named", name="n", num_features=2, num_labels=3) as writer:
        writer.write_label_names(["a", "b", "c"])
        writer.write_feature_names(["x", "y"])
        writer.write_text_file("settings.json", '{"é": 1}\n')
        with writer.split("train", leave_out_empty=True) as split:
            split.append(rows, labels)
    make_subset(DataSet.open(tmp_path / "named"), tmp_path / "part", 2, seed=0)
    part = DataSet.open(tmp_path / "part")
    assert part.label_names() == ["a", "b", "c"]
    assert part.feature_names() == ["x", "y"]
    assert (part.path / "settings.json").read_text(encoding="utf-8") == '{"é": 1}\n'
    assert part.split("train").num_documents == 2


@pytest.mark.parametrize("documents", [1, 601])
def test_more_than_there_are_cannot_be_drawn(documents: int) -> None:
    with pytest.raises(ConfigError, match="give 2 to 600"):
        drawn_rows(600, documents, 0)


def test_the_command_says_what_it_made(data: DataSet, tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "tune_subset.py", data.path, tmp_path / "part"]
    done = subprocess.run([*command, "--documents", "40"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "40 of 600 training documents" in done.stdout
    again = subprocess.run([*command, "--documents", "40"], capture_output=True, text=True)
    assert again.returncode == 1
    assert "already holds a data set" in again.stderr
