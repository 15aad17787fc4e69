"""Documents in and predictions out: every format holds the same, and no half file is left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_sets import FEATURES, assert_same, make

from ray_xml.errors import ConfigError, DataSetError
from ray_xml.predict_io import documents, sink
from ray_xml.predictor import Predictions

NONE = -np.inf
BLOCKS = [
    Predictions(
        np.array([[2, 0, 1], [1, -1, -1]], np.int32),
        np.array([[0.9, 0.5, 0.1234567], [0.7, NONE, NONE]], np.float32),
    ),
    Predictions(np.array([[-1, -1, -1]], np.int32), np.full((1, 3), NONE, np.float32)),
    Predictions(np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32)),
]
LABELS = [[2, 0, 1], [1], []]
SCORES = [[0.9, 0.5, 0.1234567], [0.7], []]
NAMES = ["a", "b\u2028 b", "ü"]


def write(path: Path | None, names: list[str] | None = None) -> None:
    with sink(None if path is None else str(path), names) as target:
        for block in BLOCKS:
            target.write(block)


@pytest.mark.parametrize("names", [None, NAMES])
def test_json_lines(tmp_path: Path, names: list[str] | None) -> None:
    write(tmp_path / "p.jsonl", names)
    text = (tmp_path / "p.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    assert [line["document"] for line in lines] == [0, 1, 2]
    assert [line["labels"] for line in lines] == LABELS
    assert [line["scores"] for line in lines] == [[0.9, 0.5, 0.123457], [0.7], []]
    named = [line.get("names") for line in lines]
    assert named == ([None] * 3 if names is None else [["ü", "a", "b\u2028 b"], ["b\u2028 b"], []])


@pytest.mark.parametrize("names", [None, NAMES])
def test_parquet(tmp_path: Path, names: list[str] | None) -> None:
    write(tmp_path / "p.parquet", names)
    table = pq.read_table(tmp_path / "p.parquet").to_pydict()
    assert table["document"] == [0, 1, 2]
    assert table["labels"] == LABELS
    assert [list(np.float32(row)) for row in table["scores"]] == [
        list(np.float32(row)) for row in SCORES
    ]
    if names is None:
        assert set(table) == {"document", "labels", "scores"}
    else:
        assert table["names"] == [["ü", "a", "b\u2028 b"], ["b\u2028 b"], []]


def test_npz_holds_the_arrays_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "p.npz", NAMES)
    with np.load(tmp_path / "p.npz", allow_pickle=False) as held:
        assert set(held) == {"labels", "scores"}
        for name in held:
            expected = np.concatenate([getattr(block, name) for block in BLOCKS])
            np.testing.assert_array_equal(held[name], expected)
            assert held[name].dtype == expected.dtype


def test_standard_output_is_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    write(None)
    assert [json.loads(line)["labels"] for line in capsys.readouterr().out.splitlines()] == LABELS


@pytest.mark.parametrize("ending", [".jsonl", ".npz", ".parquet"])
def test_nothing_written_is_a_file_without_documents(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p{ending}"
    with sink(str(path), None):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if ending == ".jsonl":
        assert path.read_text() == ""
    elif ending == ".parquet":
        assert pq.read_table(path).num_rows == 0
    else:
        assert len(np.load(path)["labels"]) == 0


@pytest.mark.parametrize("ending", [".jsonl", ".npz", ".parquet"])
def test_an_error_leaves_the_older_file_and_no_draft(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p{ending}"
    path.write_bytes(b"older")

    def fail() -> None:
        with sink(str(path), None) as target:
            target.write(BLOCKS[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"older"
    write(path)
    assert path.read_bytes() != b"older"


def test_bad_names_are_told_before_anything_is_predicted(tmp_path: Path) -> None:
    for out in ("p.csv", "p", "p.json"):
        with pytest.raises(ConfigError, match=r"must be one of \.jsonl, \.npz, \.parquet"):
            sink(str(tmp_path / out), None).__enter__()
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere; make it first"):
        sink(str(tmp_path / "nowhere" / "p.npz"), None).__enter__()


def test_documents_of_a_data_set(tmp_path: Path) -> None:
    make(tmp_path / "set")
    (block,) = documents(str(tmp_path / "set"), "test", 5)
    assert_same(block, FEATURES)
    with pytest.raises(DataSetError, match="no split 'dev'"):
        next(documents(str(tmp_path / "set"), "dev", 5))


@pytest.mark.parametrize("labels", [True, False])
def test_documents_of_an_xc_file(tmp_path: Path, labels: bool) -> None:
    rows = ["1 0:1 2:2", "0", " 1:3", "0,2 3:4"] if labels else ["0:1 2:2", "", "1:3", "3:4"]
    head = "4 5 3" if labels else "4 5"
    (tmp_path / "x.txt").write_text("\n".join([head, *rows]) + "\n")
    (block,) = documents(str(tmp_path / "x.txt"), "ignored", 5)
    assert_same(block, FEATURES)


def test_a_place_with_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere"):
        next(documents(str(tmp_path / "nowhere"), "test", 5))
