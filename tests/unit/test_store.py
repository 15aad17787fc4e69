"""The data-set folder: round trips, refusals, damage, and that reading makes no copy."""

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

from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr
from ray_xml.store import DataSet, DataSetMeta, DataSetWriter

FEATURES = Csr.from_lists([[0, 2], [], [1], [3]], 5, [[1, 2], [], [3], [4]])
LABELS = Csr.from_lists([[1], [0], [], [0, 2]], 3)
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


# ---- what a writer refuses ----


def test_existing_data_set_is_kept_unless_overwritten(tmp_path: Path) -> None:
    old = make(tmp_path / "set")
    with pytest.raises(DataSetError, match=r"choose another output folder, or pass overwrite=True"):
        make(tmp_path / "set")
    assert DataSet.open(tmp_path / "set").meta == old
    new = make(tmp_path / "set", overwrite=True, scale=3)
    assert DataSet.open(tmp_path / "set").meta == new != old
    assert os.listdir(tmp_path) == ["set"]


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for overwrite in (False, True):
        with pytest.raises(DataSetError, match="not a ray_xml data set"):
            begin(tmp_path / "docs", overwrite)
        with pytest.raises(DataSetError, match="is not a folder"):
            begin(tmp_path / "file", overwrite)
    assert (tmp_path / "docs" / "thesis.txt").read_text() == "years of work"


def test_empty_folder_and_missing_parents_will_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")
    make(tmp_path / "a" / "b" / "set")
    DataSet.open(tmp_path / "empty").verify()
    DataSet.open(tmp_path / "a" / "b" / "set").verify()


def test_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link", overwrite=True, scale=2)
    assert (tmp_path / "link").is_symlink()
    assert DataSet.open(tmp_path / "real").split("test").features.values[0] == 2  # type: ignore[index]


@pytest.mark.parametrize("overwrite", [False, True])
def test_failure_leaves_things_as_they_were(tmp_path: Path, overwrite: bool) -> None:
    before = make(tmp_path / "set") if overwrite else None
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        begin(tmp_path / "set", overwrite) as writer,
        writer.split("train", leave_out_empty=True) as split,
    ):
        split.append(FEATURES, LABELS)
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == (["set"] if overwrite else [])
    if before is not None:
        assert DataSet.open(tmp_path / "set").meta == before


def test_place_taken_meanwhile(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(DataSetError, match="already holds a data set"),
        begin(tmp_path / "set") as writer,
    ):
        with writer.split("train", leave_out_empty=True) as split:
            split.append(FEATURES, LABELS)
        other = make(tmp_path / "set")
    assert DataSet.open(tmp_path / "set").meta == other
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize("blocks", [1, 3000])  # met when the split ends, and while it is written
def test_full_disk_is_told_in_plain_words(tmp_path: Path, blocks: int) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with (  # noqa: PT012
        pytest.raises(DataSetError, match=r"train.arrow cannot be written \(No space left"),
        begin(tmp_path / "set") as writer,
        writer.split("train", leave_out_empty=True) as split,
    ):
        split._raw["feature_ids"].close()
        split._raw["feature_ids"] = open("/dev/full", "wb")  # noqa: SIM115
        for _ in range(blocks):
            split.append(FEATURES, LABELS)
    assert os.listdir(tmp_path) == []


def test_folder_is_as_open_as_the_umask_allows(tmp_path: Path) -> None:
    make(tmp_path / "set")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_blocks_that_do_not_fit(tmp_path: Path) -> None:
    values = FEATURES.values
    assert values is not None
    bad = values.copy()
    bad[0] = np.nan
    cases = [
        (Csr.from_lists([[0]], 6, [[1]]), Csr.from_lists([[0]], 3), "6 features and 3 labels wide"),
        (FEATURES, LABELS.slice(0, 3), "4 rows of features and 3 of labels"),
        (Csr(FEATURES.offsets, FEATURES.ids, None, 5), LABELS, "no float32"),
        (Csr(FEATURES.offsets, FEATURES.ids, bad, 5), LABELS, "not finite"),
        (FEATURES, Csr.from_lists([[1], [0], [], [3]], 3), "out of range"),
        (FEATURES, Csr.from_lists([[1], [0], [], [-1]], 3), "out of range"),
        (FEATURES, Csr(LABELS.offsets, LABELS.ids.astype(np.int64), None, 3), "not int32"),
    ]
    with begin(tmp_path / "set") as writer, writer.split("train", leave_out_empty=False) as split:
        for features, labels, message in cases:
            with pytest.raises(DataSetError, match=message):
                split.append(features, labels)
        split.append(FEATURES, LABELS)
    assert_same(DataSet.open(tmp_path / "set").split("train").features, FEATURES)


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    cases = [
        (["a", "b"], "2 names for 3 ids"),
        (["a", "b", "c", "d"], "4 names for 3 ids"),
        (["a", "b\nc", "d"], "name 2 has a line end"),
        (["a", "b", "\ud800"], "UTF-8"),
    ]
    for names, message in cases:
        with pytest.raises(DataSetError, match=message), begin(tmp_path / "set") as writer:
            writer.write_label_names(names)
    for name in ("../up.txt", "meta.json", "train.arrow", "a/b", "", ".", ".."):
        with pytest.raises(DataSetError, match="not a plain name"), begin(tmp_path / "s") as writer:
            writer.write_text_file(name, "text")
    with begin(tmp_path / "set") as writer:
        for split_name in ("", "a/b", ".."):
            with pytest.raises(DataSetError, match="split name"):
                writer.split(split_name, leave_out_empty=True)
        writer.write_feature_names(str(i) for i in range(5))
        with pytest.raises(DataSetError, match="taken"):
            writer.write_feature_names(str(i) for i in range(5))
    assert DataSet.open(tmp_path / "set").feature_names() == ["0", "1", "2", "3", "4"]


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
