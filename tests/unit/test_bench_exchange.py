"""Files between the benchmark and its peer programs, and the score of what comes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from small_sets import assert_same, make
from trained import trained_run

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "peer_programs"))
import exchange_files
import peer_io
from exchange_files import ExchangeError

from ray_xml.evaluation import evaluate
from ray_xml.predictor import Predictor
from ray_xml.prepare import prepare_xc
from ray_xml.run_sections import DataSetConfig
from ray_xml.sparse import Csr
from ray_xml.store import DataSet


@pytest.fixture
def files(data: DataSet, tmp_path: Path) -> Path:
    return exchange_files.write_data_set(data, tmp_path / "exchange")


class FirstLabels:
    """A peer that answers every document with labels 0, 1, …"""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def train(self, data: Path, model: Path, threads: int) -> None:
        model.write_text(f"{threads} {sorted(path.name for path in data.iterdir())}")

    def load(self, model: Path, threads: int) -> None:
        assert model.read_text().startswith(f"{threads} ")

    def documents(self, rows: peer_io.Rows) -> peer_io.Rows:
        return rows

    def predict(self, documents: peer_io.Rows) -> int:
        self.asked.append(documents.shape[0])
        return documents.shape[0]

    def answers(self, predicted: int) -> tuple[np.ndarray, np.ndarray]:
        return peer_io.padded([[(i, 1.0 / (i + 1)) for i in range(4)]] * predicted)


def test_matrices_come_back(data: DataSet, files: Path) -> None:
    for name, split, kind in (
        ("train_X", "train", "features"), ("train_Y", "train", "labels"),
        ("test_X", "test", "features"),
    ):  # fmt: skip
        expected: Csr = getattr(data.split(split), kind)
        loaded = scipy.sparse.load_npz(files / f"{name}.npz")
        assert_same(Csr.from_scipy(loaded, binary=expected.values is None), expected)
        rows = peer_io.read_rows(files / f"{name}.npz")
        assert rows.shape == (expected.num_rows, expected.num_columns)
        assert np.array_equal(rows.ids, loaded.indices)
        one, want = peer_io.row(rows, 3), expected.slice(3, 4).packed()
        assert one.shape == (1, expected.num_columns)
        assert np.array_equal(one.offsets, want.offsets)
        assert np.array_equal(one.ids, want.ids)


def test_the_text_file_is_the_train_split(data: DataSet, files: Path, tmp_path: Path) -> None:
    text = str(files / "train.txt")
    prepare_xc(text, text, str(tmp_path / "again"))
    again = DataSet.open(tmp_path / "again").split("train")
    assert_same(again.features, data.split("train").features)
    assert_same(again.labels, data.split("train").labels)


def test_files_are_written_once_a_data_set(data: DataSet, files: Path, tmp_path: Path) -> None:
    before = (files / "train.txt").stat().st_mtime_ns
    assert exchange_files.write_data_set(data, files.parent) == files
    assert (files / "train.txt").stat().st_mtime_ns == before
    make(tmp_path / "other", name=data.meta.name)
    assert exchange_files.write_data_set(DataSet.open(tmp_path / "other"), files.parent) != files


def test_unit_length(tmp_path: Path) -> None:
    for scale, unit in ((1, True), (2, False)):
        text = f"2 3 2\n0 0:{scale * 0.6} 1:{scale * 0.8}\n1 2:{scale}\n"
        (tmp_path / "x.txt").write_text(text)
        source, out = str(tmp_path / "x.txt"), str(tmp_path / f"set{scale}")
        prepare_xc(source, source, out)
        assert exchange_files.has_unit_length(DataSet.open(out)) is unit


def test_a_peer_program_from_end_to_end(data: DataSet, files: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out.npz"
    common = [f"--data={files}", f"--model={model}", "--threads=3"]
    peer_io.main(FirstLabels(), ["train", *common])
    assert "train.txt" in model.read_text()
    peer = FirstLabels()
    peer_io.main(peer, ["predict", *common, f"--out={out}", "--repeats=2", "--singles=40"])
    assert peer.asked == [150] * 2 + [1] * 50
    answers = exchange_files.read_answers(out)
    assert answers.labels.tolist() == [[0, 1, 2, 3, -1]] * 150
    assert answers.scores[0].tolist() == [1, 0.5, np.float32(1 / 3), 0.25, -np.inf]
    assert (len(answers.batch_seconds), len(answers.one_seconds)) == (2, 40)
    assert answers.load_seconds >= 0


def test_predict_needs_a_place_for_its_answers(files: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        peer_io.main(FirstLabels(), ["predict", f"--data={files}", "--model=m", "--threads=1"])


def test_more_singles_than_documents(files: Path) -> None:
    rows = peer_io.read_rows(files / "test_X.npz")
    assert len(peer_io._one_by_one(FirstLabels(), rows, 1000)) == 150


@pytest.mark.parametrize("source", ["proxy", "both"])
def test_the_score_is_that_of_evaluate(
    data: DataSet, tmp_path_factory: pytest.TempPathFactory, source: str
) -> None:
    predictor = Predictor.load(trained_run(data, tmp_path_factory.mktemp("run"), source).path)
    labels, _ = predictor.predict(data.split("test").features, 5)
    scored = exchange_files.score(data, predictor.config.dataset, labels)
    assert scored == evaluate(predictor, data, "test")
    assert set(exchange_files.METRICS) <= set(scored)


def test_what_are_no_predictions(data: DataSet, tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(ExchangeError, match="no predictions"):
        exchange_files.read_answers(path)
    whole: dict[str, Any] = {
        "labels": np.zeros((2, 3), np.int32), "scores": np.zeros((2, 2)),
        "batch_seconds": np.zeros(1), "one_seconds": np.zeros(1), "load_seconds": 0.1,
    }  # fmt: skip
    np.savez(path, **whole)
    with pytest.raises(ExchangeError, match=r"\(2, 3\) labels, \(2, 2\) scores"):
        exchange_files.read_answers(path)
    np.savez(path, labels=whole["labels"])
    with pytest.raises(ExchangeError, match="scores"):
        exchange_files.read_answers(path)
    np.savez(path, **whole | {"scores": np.array([[None]])})  # would need pickle
    with pytest.raises(ExchangeError, match="no predictions"):
        exchange_files.read_answers(path)
    expected = DataSetConfig()
    with pytest.raises(ExchangeError, match="for 2 documents, not 150"):
        exchange_files.score(data, expected, whole["labels"])
    with pytest.raises(ExchangeError, match="names label 0 twice"):
        exchange_files.score(data, expected, np.zeros((150, 3), np.int32))
