"""Writing a data-set folder: what is replaced, what is refused, and what a failure leaves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from small_sets import FEATURES, LABELS, assert_same, begin, make

from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr
from ray_xml.store import DataSet


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
