"""Reading a data-set folder: round trips, damage, and that nothing is copied."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
from small_sets import FEATURES, LABELS, assert_same, begin, make

from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter

TRAIN_COUNTS = {
    "documents": 2,
    "feature_nnz": 3,
    "label_pairs": 3,
    "left_out_no_features": 1,
    "left_out_no_labels": 1,
    "kept_no_features": 0,
    "kept_no_labels": 0,
}
TEST_COUNTS = {
    "documents": 4,
    "feature_nnz": 4,
    "label_pairs": 4,
    "left_out_no_features": 0,
    "left_out_no_labels": 0,
    "kept_no_features": 1,
    "kept_no_labels": 1,
}


def anonymous_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])  # type: ignore[index]


# ---- what is written is what is read ----


def test_round_trip(tmp_path: Path) -> None:
    meta = make(tmp_path / "set")
    data_set = DataSet.open(tmp_path / "set")
    assert data_set.meta == meta
    assert data_set.path == tmp_path / "set"
    assert (meta.format_version, meta.name) == (1, "small")
    assert (meta.num_features, meta.num_labels) == (5, 3)
    train, test = data_set.split("train"), data_set.split("test")
    assert_same(train.features, FEATURES.take(np.array([0, 3])))
    assert_same(train.labels, LABELS.take(np.array([0, 3])))
    assert_same(test.features, FEATURES)
    assert_same(test.labels, LABELS)
    assert (train.num_documents, test.num_documents) == (2, 4)
    assert meta.splits["train"].model_dump(exclude={"bytes", "sha256"}) == TRAIN_COUNTS
    assert meta.splits["test"].model_dump(exclude={"bytes", "sha256"}) == TEST_COUNTS
    assert data_set.label_names() == ["a", "b\u2028 b", "ü"]
    assert data_set.feature_names() is None
    assert (data_set.path / "vectoriser.json").read_text() == "{}\n"
    data_set.verify()
    assert sorted(os.listdir(tmp_path)) == ["set"]
    assert sorted(os.listdir(tmp_path / "set")) == [
        "labels.txt",
        "meta.json",
        "test.arrow",
        "train.arrow",
        "vectoriser.json",
    ]


def test_file_is_plain_arrow_of_one_batch(tmp_path: Path) -> None:
    make(tmp_path / "set")
    with pa.ipc.open_file(str(tmp_path / "set" / "test.arrow")) as reader:
        assert reader.num_record_batches == 1
        table = reader.read_all()
    table.validate(full=True)
    assert table.schema.types == [
        pa.large_list(pa.int32()),
        pa.large_list(pa.float32()),
        pa.large_list(pa.int32()),
    ]
    assert table.to_pydict() == {
        "feature_ids": [[0, 2], [], [1], [3]],
        "feature_values": [[1.0, 2.0], [], [3.0], [4.0]],
        "label_ids": [[1], [0], [], [0, 2]],
    }


def test_random_blocks(tmp_path: Path) -> None:
    matrix = scipy.sparse.random(300, 40, 0.1, "csr", np.float32, rng=1)
    features = Csr.from_scipy(matrix)
    labels = Csr.from_scipy(scipy.sparse.random(300, 9, 0.1, "csr", rng=2), binary=True)
    with DataSetWriter(tmp_path / "set", name="r", num_features=40, num_labels=9) as writer:
        for name, leave_out in (("all", False), ("some", True)):
            with writer.split(name, leave_out_empty=leave_out) as split:
                for start, block in features.blocks(37):
                    split.append(block, labels.slice(start, start + block.num_rows))
    data_set = DataSet.open(tmp_path / "set")
    assert_same(data_set.split("all").features, features)
    assert_same(data_set.split("all").labels, labels)
    rows = np.flatnonzero((features.counts > 0) & (labels.counts > 0))
    assert 0 < len(rows) < 300
    assert_same(data_set.split("some").features, features.take(rows))
    assert_same(data_set.split("some").labels, labels.take(rows))


@pytest.mark.parametrize("rows", [0, 3])
def test_splits_without_entries(tmp_path: Path, rows: int) -> None:
    features = Csr.from_lists([[]] * rows, 5, [[]] * rows)
    with begin(tmp_path / "set") as writer, writer.split("e", leave_out_empty=False) as split:
        if rows:
            split.append(features, Csr.from_lists([[]] * rows, 3))
    split_read = DataSet.open(tmp_path / "set").split("e")
    assert split_read.num_documents == split_read.labels.num_rows == rows
    assert split_read.features.nnz == split_read.labels.nnz == 0
    assert split_read.features.to_scipy().shape == (rows, 5)


def test_checksum_tells_data_apart_but_not_names(tmp_path: Path) -> None:
    one = make(tmp_path / "one", name="one")
    two = make(tmp_path / "two", name="two")
    three = make(tmp_path / "three", scale=2)
    assert one.checksum == two.checksum != three.checksum
    # Same sizes and counts: only the contents differ.
    assert one.splits["train"].bytes == three.splits["train"].bytes


def test_pickle_reopens(tmp_path: Path) -> None:
    make(tmp_path / "set")
    data_set = DataSet.open(tmp_path / "set")
    data_set.split("test")
    packed = pickle.dumps(data_set)
    assert len(packed) < 500
    assert_same(pickle.loads(packed).split("test").features, FEATURES)
    make(tmp_path / "set", overwrite=True, scale=2)
    with pytest.raises(DataSetError, match="another data set than the one first opened"):
        pickle.loads(packed)
    assert_same(data_set.split("test").features, FEATURES)  # what is mapped stays


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("set"))
    assert DataSet.open("set").path == tmp_path / "set"


# ---- no copy ----


def test_arrays_are_read_only_views(tmp_path: Path) -> None:
    make(tmp_path / "set")
    split = DataSet.open(tmp_path / "set").split("test")
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs Linux's /proc/self/maps")
    ranges = [
        [int(end, 16) for end in text.split()[0].split("-")]
        for text in maps.read_text().splitlines()
        if text.endswith("set/test.arrow")
    ]
    for csr in (split.features, split.labels):
        assert csr.offsets.dtype == np.int64
        assert csr.ids.dtype == np.int32
        for array in (csr.offsets, csr.ids, csr.values):
            if array is None:
                continue
            assert not array.flags.writeable
            address = array.ctypes.data
            assert any(low <= address and address + array.nbytes <= high for low, high in ranges)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    rows, each = 2_000, 100
    ids = np.tile(np.arange(each, dtype=np.int32), rows)
    features = Csr(np.arange(0, rows * each + 1, each), ids, np.ones(rows * each, np.float32), each)
    labels = Csr(np.arange(rows + 1), np.zeros(rows, np.int32), None, 1)
    make(tmp_path / "warm-up")
    DataSet.open(tmp_path / "warm-up").split("test")
    before = anonymous_kib()
    with (
        DataSetWriter(tmp_path / "set", name="big", num_features=each, num_labels=1) as writer,
        writer.split("train", leave_out_empty=True) as split,
    ):
        for _ in range(40):
            split.append(features, labels)
    size = writer.meta.splits["train"].bytes  # type: ignore[union-attr]
    assert size > 60 << 20
    assert anonymous_kib() - before < size / 1024 / 4
    before = anonymous_kib()
    part = DataSet.open(tmp_path / "set").split("train")
    assert part.features.values is not None
    assert part.features.values.sum() == 40 * rows * each  # every page was touched
    assert part.features.ids.max() == each - 1
    assert anonymous_kib() - before < size / 1024 / 10


# ---- what a reader refuses ----


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"no data-set folder .*ray-xml prepare xc TRAIN TEST"):
        DataSet.open(tmp_path / "none")
    with pytest.raises(DataSetError, match="not a ray_xml data set"):
        DataSet.open(tmp_path)
    for text in ("", "[]", "{", '{"name": "x"}', "\x00"):
        (tmp_path / "meta.json").write_text(text)
        with pytest.raises(DataSetError, match="not a ray_xml data set"):
            DataSet.open(tmp_path)


def test_newer_format(tmp_path: Path) -> None:
    make(tmp_path / "set")
    path = tmp_path / "set" / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2, "new": 1}))
    with pytest.raises(DataSetError, match=r"data-set format 2, .* reads up to 1: update ray_xml"):
        DataSet.open(tmp_path / "set")


def test_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    make(tmp_path / "set")
    with pytest.raises(DataSetError, match="no split 'dev': it has train, test"):
        DataSet.open(tmp_path / "set").split("dev")


def test_damage(tmp_path: Path) -> None:
    make(tmp_path / "good")

    def damaged(name: str, raw: bytes | None) -> Path:
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "good", folder)
        (folder / name).unlink()
        if raw is not None:
            (folder / name).write_bytes(raw)
        return folder

    arrow = (tmp_path / "good" / "train.arrow").read_bytes()
    meta = (tmp_path / "good" / "meta.json").read_bytes()
    for name, raw, message in [
        ("train.arrow", None, r"train.arrow is damaged: it cannot be read"),
        ("train.arrow", arrow[:-1], rf"train.arrow is damaged: it has {len(arrow) - 1} bytes"),
        ("labels.txt", b"a\n", r"labels.txt is damaged: it has 2 bytes"),
        ("meta.json", meta.replace(b'"label_pairs": 3', b'"label_pairs": 4'), "checksum"),
        ("meta.json", meta.replace(b'"documents"', b'"papers"'), "meta.json is damaged"),
    ]:
        with pytest.raises(DataSetError, match=message):
            DataSet.open(damaged(name, raw))
    flipped = bytearray(arrow)
    flipped[arrow.index(np.float32(4).tobytes())] ^= 1
    data_set = DataSet.open(damaged("train.arrow", bytes(flipped)))
    with pytest.raises(DataSetError, match=r"train.arrow is damaged: its checksum"):
        data_set.verify()
    with pytest.raises(DataSetError, match=r"train.arrow is damaged"):
        DataSet.open(damaged("train.arrow", bytes(len(arrow)))).split("train")
