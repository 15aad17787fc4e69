"""From XC files to a data set: agreement of the files, interruption, real data."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ray_xml.cli import main
from ray_xml.errors import ConfigError, DataSetError, InputError
from ray_xml.prepare import prepare_xc
from ray_xml.store import DataSet

BIBTEX = Path(__file__).parents[3] / "shared" / "data" / "bibtex"
TRAIN = "4 6 3\n0,2 1:0.5 5:1\n 2:1\n1\n1 0:2\n"
TEST = "2 6 3\n2 4:1\n 3:1\n"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "train.txt").write_text(TRAIN)
    (tmp_path / "test.txt").write_text(TEST)
    return tmp_path


def test_prepare(files: Path) -> None:
    (files / "labels.txt").write_bytes("\ufeffone\r\nzwei ½\r\nthree".encode())
    (files / "features.txt.xz").write_bytes(lzma.compress(b"a\nb\nc\nd\ne\n\n"))
    (files / "dev.txt").write_text("1 6 3\n\n")
    seen: list[tuple[str, int, int]] = []
    meta = prepare_xc(
        files / "train.txt",
        files / "test.txt",
        files / "out",
        dev=files / "dev.txt",
        label_names=files / "labels.txt",
        feature_names=files / "features.txt.xz",
        progress=lambda *told: seen.append(told),
    )
    data_set = DataSet.open(files / "out")
    assert data_set.meta == meta
    assert (meta.name, meta.num_features, meta.num_labels) == ("out", 6, 3)
    assert seen == [("train", 4, 4), ("test", 2, 2), ("dev", 1, 1)]
    counts = {name: split.model_dump() for name, split in meta.splits.items()}
    assert [counts[name]["documents"] for name in ("train", "test", "dev")] == [2, 2, 1]
    assert (counts["train"]["left_out_no_features"], counts["train"]["left_out_no_labels"]) == (
        1,
        1,
    )
    assert (counts["test"]["kept_no_features"], counts["test"]["kept_no_labels"]) == (0, 1)
    assert (counts["dev"]["kept_no_features"], counts["dev"]["kept_no_labels"]) == (1, 0)
    train = data_set.split("train")
    assert np.array_equal(
        train.features.to_scipy().toarray(), [[0, 0.5, 0, 0, 0, 1], [2, 0, 0, 0, 0, 0]]
    )
    assert np.array_equal(train.labels.to_scipy().toarray(), [[1, 0, 1], [0, 1, 0]])
    assert data_set.label_names() == ["one", "zwei ½", "three"]
    assert data_set.feature_names() == ["a", "b", "c", "d", "e", ""]


def test_split_format_gives_the_same_data_set(files: Path) -> None:
    (files / "trX").write_text("4 6\n1:0.5 5:1\n2:1\n\n0:2\n")
    (files / "trY").write_text("4 3\n0:1 2:1\n\n1:1\n1:1\n")
    (files / "teX").write_text("2 6\n4:1\n3:1\n")
    (files / "teY").write_text("2 3\n2:1\n\n")
    joined = prepare_xc(files / "train.txt", files / "test.txt", files / "joined")
    split = prepare_xc(
        files / "trX",
        files / "teX",
        files / "split",
        name="other",
        train_labels=files / "trY",
        test_labels=files / "teY",
    )
    assert split.name == "other"
    assert split.checksum == joined.checksum


def test_filters_follow_the_documents_that_stay(files: Path) -> None:
    """Train keeps its documents 0 and 3; the pairs of the others go."""
    (files / "train.filter").write_text("3 2\n0 0\n1 1\n0 2\n0 2\n2 0\n")
    (files / "test.filter.gz").write_bytes(gzip.compress(b"1\t2\r\n 0 1"))
    prepare_xc(
        files / "train.txt",
        files / "test.txt",
        files / "out",
        filters={"train": files / "train.filter", "test": files / "test.filter.gz"},
    )
    data = DataSet.open(files / "out")
    data.verify()
    for split, expected in (("train", [[1, 0, 1], [0, 0, 1]]), ("test", [[0, 1, 0], [0, 0, 1]])):
        found = data.split(split).filtered
        assert found is not None
        np.testing.assert_array_equal(found.to_scipy().toarray(), expected)
    arguments = ["prepare", "xc", str(files / "train.txt"), str(files / "test.txt")]
    arguments += [str(files / "cli"), "--filter-test", str(files / "test.filter.gz")]
    assert main(arguments) == 0
    again = DataSet.open(files / "cli")
    assert again.split("train").filtered is None
    assert again.split("test").filtered.ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n0\n", "f.txt:2: '0' is no pair of a document and a label"),
        ("0 1 2\n", "f.txt:1: '0 1 2' is no pair"),
        ("0 1\n\n1 1\n", "f.txt:2: '' is no pair"),
        ("0 1\n-1 1\n", "f.txt:2: '-1 1' is no pair"),
        ("0 1.5\n", "f.txt:1: '0 1.5' is no pair"),
        ("0 99999999999999999999\n", "f.txt:1: '0 99999999999999999999' is no pair"),
        ("0 1\n1 1\n2 1\n", "f.txt:3: document 2: there are 2 documents, numbered from 0"),
        ("0 3\n", "f.txt:1: label 3: there are 3 labels, numbered from 0"),
        ("0 1\n\0\n", "is no pair"),
    ],
)
def test_faulty_filters(files: Path, text: str, message: str) -> None:
    (files / "f.txt").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        prepare_xc(
            files / "train.txt",
            files / "test.txt",
            files / "out",
            filters={"test": files / "f.txt"},
        )
    assert not (files / "out").exists()


def test_a_filter_of_a_split_without_a_file(files: Path) -> None:
    (files / "f.txt").write_text("")
    with pytest.raises(ConfigError, match="a filter of dev"):
        prepare_xc(
            files / "train.txt", files / "test.txt", files / "out", filters={"dev": files / "f.txt"}
        )


def test_headers_that_disagree(files: Path) -> None:
    train, test = files / "train.txt", files / "test.txt"
    for header, message in (
        ("2 7 3", f"says 7 features, but that of {train} says 6"),
        ("2 6 4", f"says 4 labels, but that of {train} says 3"),
        ("2 6", r"features only: give its label file too (test_labels)"),
    ):
        test.write_text(f"{header}\n4:1\n3:1\n")
        with pytest.raises(InputError) as caught:
            prepare_xc(train, test, files / "out")
        assert (caught.value.file, caught.value.line) == (str(test), 1)
        assert message in caught.value.what
    test.write_text(TEST)
    (files / "dev.txt").write_text("1 6 9\n\n")
    with pytest.raises(InputError, match="says 9 labels"):
        prepare_xc(train, test, files / "out", dev=files / "dev.txt")
    assert not (files / "out").exists()


def test_names_that_do_not_fit(files: Path) -> None:
    names = files / "names.txt"
    for raw, line, column, message in (
        (b"a\nb\n", None, None, "has 2 names, but the header says 3 labels"),
        (b"a\nb\nc\nd\n", None, None, "has 4 names, but the header says 3 labels"),
        (b"a\nab\xff\nc\n", 2, 3, "not UTF-8"),
        (b"a\rb\nc\nd\n", 1, 2, "carriage return"),
    ):
        names.write_bytes(raw)
        with pytest.raises(InputError) as caught:
            prepare_xc(files / "train.txt", files / "test.txt", files / "out", label_names=names)
        error = caught.value
        assert (error.file, error.line, error.column) == (str(names), line, column)
        assert message in error.what
    with pytest.raises(InputError, match="no such file"):
        prepare_xc(
            files / "train.txt", files / "test.txt", files / "out", feature_names=files / "none"
        )
    assert not (files / "out").exists()


def test_fault_late_in_a_file_leaves_nothing(files: Path) -> None:
    (files / "test.txt").write_text("2 6 3\n2 4:1\n2 6:1\n")
    with pytest.raises(InputError) as caught:
        prepare_xc(files / "train.txt", files / "test.txt", files / "out")
    assert (caught.value.line, caught.value.column) == (3, 3)
    assert sorted(os.listdir(files)) == ["test.txt", "train.txt"]


def test_nothing_to_train_on(files: Path) -> None:
    (files / "train.txt").write_text("2 6 3\n1\n 2:1\n")
    with pytest.raises(InputError, match="nothing to train on"):
        prepare_xc(files / "train.txt", files / "test.txt", files / "out")
    assert not (files / "out").exists()


def test_unsorted_ids_on_request(files: Path) -> None:
    (files / "test.txt").write_text("2 6 3\n2,0 4:1 1:2\n 3:1\n")
    with pytest.raises(InputError, match="label id 0 comes after 2"):
        prepare_xc(files / "train.txt", files / "test.txt", files / "out")
    prepare_xc(files / "train.txt", files / "test.txt", files / "out", sort_ids=True)
    assert list(DataSet.open(files / "out").split("test").features.ids) == [1, 4, 3]


def test_exception_midway_keeps_the_old_data_set(files: Path) -> None:
    def stop(split: str, done: int, total: int) -> None:
        if split == "test":
            raise KeyboardInterrupt

    before = prepare_xc(files / "train.txt", files / "test.txt", files / "out")
    with pytest.raises(DataSetError, match="overwrite=True"):
        prepare_xc(files / "train.txt", files / "test.txt", files / "out")
    with pytest.raises(KeyboardInterrupt):
        prepare_xc(
            files / "train.txt", files / "test.txt", files / "out", overwrite=True, progress=stop
        )
    assert DataSet.open(files / "out").meta == before
    with pytest.raises(KeyboardInterrupt):
        prepare_xc(files / "train.txt", files / "test.txt", files / "new", progress=stop)
    assert sorted(os.listdir(files)) == ["out", "test.txt", "train.txt"]


CHILD = """
import sys, time
from ray_xml.prepare import prepare_xc

def wait(split, done, total):
    if split == "test":
        print("midway", flush=True)
        time.sleep(60)

prepare_xc(*sys.argv[1:4], overwrite=True, progress=wait)
"""


@pytest.mark.parametrize("exists", [False, True])
def test_killed_midway(files: Path, exists: bool) -> None:
    train, test, out = files / "train.txt", files / "test.txt", files / "out"
    before = prepare_xc(train, test, out) if exists else None
    command = [sys.executable, "-c", CHILD, str(train), str(test), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "midway\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    left = [name for name in os.listdir(files) if name.startswith(".out.partial-")]
    assert len(left) == 1
    with pytest.raises(DataSetError, match="not a ray_xml data set"):
        DataSet.open(files / left[0])
    if before is None:
        assert not out.exists()
    else:
        DataSet.open(out).verify()
        assert DataSet.open(out).meta == before
    again = prepare_xc(train, test, out, overwrite=exists)
    assert DataSet.open(out).meta == again


@pytest.mark.skipif(not BIBTEX.is_dir(), reason="the bibtex data are not beside the repository")
def test_bibtex(tmp_path: Path) -> None:
    began = time.perf_counter()
    meta = prepare_xc(
        BIBTEX / "train.txt.xz",
        BIBTEX / "test.txt.xz",
        tmp_path / "bibtex",
        label_names=BIBTEX / "labels.txt.xz",
        feature_names=BIBTEX / "features.txt.xz",
    )
    assert time.perf_counter() - began < 20
    data_set = DataSet.open(tmp_path / "bibtex")
    data_set.verify()
    assert (meta.num_features, meta.num_labels) == (1836, 159)
    for name, rows in (("train", 4880), ("test", 2515)):
        counts = meta.splits[name]
        left_out = counts.left_out_no_features + counts.left_out_no_labels
        assert counts.documents + left_out == rows
        split = data_set.split(name)
        assert split.features.nnz == counts.feature_nnz
        assert (np.diff(split.features.offsets) > 0).all() or name == "test"
        text = lzma.decompress((BIBTEX / f"{name}.txt.xz").read_bytes()).decode()
        assert text.count(":") == counts.feature_nnz
    assert len(data_set.label_names() or []) == 159
    assert len(data_set.feature_names() or []) == 1836
