"""The XC reader: blocks of a file, files in step, headers, and damaged or endless files."""

from __future__ import annotations

import lzma
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from xc_files import Document, documents, fault, read, slow_parse, write

from ray_xml import xc_io
from ray_xml.xc_io import open_xc

BIBTEX = Path(__file__).parents[3] / "shared" / "data" / "bibtex"

# ---- what is read ----

SMALL = """\
6 10 4
0,3 1:0.5 9:2
2 0:-1e-3
 3:+.25 4:7.
5:1
1

"""
SMALL_DOCUMENTS: list[Document] = [
    ([0, 3], [(1, 0.5), (9, 2.0)]),
    ([2], [(0, float(np.float32(-1e-3)))]),
    ([], [(3, 0.25), (4, 7.0)]),
    ([], [(5, 1.0)]),
    ([1], []),
    ([], []),
]


@pytest.mark.parametrize("ending", [".txt", ".txt.gz", ".txt.xz"])
@pytest.mark.parametrize("block_bytes", [1, 7, 30, 1 << 20])
def test_small_file(tmp_path: Path, ending: str, block_bytes: int) -> None:
    path = write(tmp_path / f"a{ending}", SMALL)
    reader = open_xc(path, block_bytes=block_bytes)
    assert (reader.num_documents, reader.num_features, reader.num_labels) == (6, 10, 4)
    assert documents(list(reader.blocks())) == SMALL_DOCUMENTS == slow_parse(SMALL)
    assert documents(list(reader.blocks())) == SMALL_DOCUMENTS  # a reader can be used again


@pytest.mark.parametrize("block_bytes", [1, 11, 1 << 20])
def test_line_ends_tabs_and_spaces(tmp_path: Path, block_bytes: int) -> None:
    text = SMALL.replace("\n", " \r\n").replace("9:2", " \t9:2")
    path = write(tmp_path / "a.txt", text)
    assert read(path, block_bytes=block_bytes) == SMALL_DOCUMENTS


def test_blocks_are_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "100 5 5\n" + "1 2:3\n" * 100)
    blocks = list(open_xc(path, block_bytes=64).blocks())
    assert len(blocks) > 5
    assert all(0 < features.num_rows <= 12 for features, _ in blocks)


@pytest.mark.parametrize("block_bytes", [1, 9, 40, 1 << 20])
def test_split_format_in_step(tmp_path: Path, block_bytes: int) -> None:
    features = write(tmp_path / "X.txt", "4 10\n1:0.5 9:2\n\n3:1 4:1 5:1 6:1 7:1 8:1\n0:4\n")
    labels = write(tmp_path / "Y.txt.gz", "4 3\n0:1 2:1.0\n1:1\n\n0:1 1:1 2:-5e3\n")
    reader = open_xc(features, labels_path=labels, block_bytes=block_bytes)
    assert (reader.num_documents, reader.num_features, reader.num_labels) == (4, 10, 3)
    assert reader.has_labels
    assert documents(list(reader.blocks())) == [
        ([0, 2], [(1, 0.5), (9, 2.0)]),
        ([1], []),
        ([], [(3, 1.0), (4, 1.0), (5, 1.0), (6, 1.0), (7, 1.0), (8, 1.0)]),
        ([0, 1, 2], [(0, 4.0)]),
    ]


def test_features_alone(tmp_path: Path) -> None:
    reader = open_xc(write(tmp_path / "X.txt", "2 10\n1:0.5\n\n"))
    assert (reader.num_labels, reader.has_labels) == (0, False)
    [(features, labels)] = reader.blocks()
    assert (features.num_columns, labels.num_columns) == (10, 0)
    assert documents([(features, labels)]) == [([], [(1, 0.5)]), ([], [])]


def test_no_documents(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", "0 10 4\n")) == []


def test_huge_row_count_costs_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", f"{10**12} 10 4\n1 2:3\n")
    tracemalloc.start()
    error = fault(path, block_bytes=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    assert (error.line, error.column) == (1, 1)
    assert "only 1 lines follow" in error.what


# ---- faults of a file as a whole ----


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", None, None, "the file is empty"),
        ("\n1 2:3\n", 1, 1, "the header should be"),
        ("5\n1 2:3\n", 1, 1, "the header should be"),
        ("1,2 3:0.5\n", 1, 1, "the header should be"),
        ("1 2 3 4\n", 1, 7, "the header should be"),
        ("1 10 four\n", 1, 6, "the header should be"),
        ("1 1e1 4\n", 1, 3, "the header should be"),
        ("1 10.0 4\n", 1, 3, "the header should be"),
        ("-1 10 4\n", 1, 1, "negative"),
        ("1 -10 4\n", 1, 3, "negative"),
        ("1 2147483648 4\n", 1, 3, "over the limit of 2147483647"),
        ("1 10 99999999999\n", 1, 6, "over the limit of 2147483647"),
        (f"{'9' * 5000} 10 4\n", 1, 1, "over the limit"),
        ("\x00\x01\x02\n", 1, 1, "the header should be"),
        ("1 10 4", 1, 7, "no line end"),
        ("2 10 4\n1 2:3\n", 1, 1, "says 2 documents, but only 1 lines follow"),
        ("1 10 4\n1 2:3\n0 2:3\n", 3, 1, "more lines than the 1 documents"),
        ("1 10 4\n1 2:3\n\n", 3, 1, "more lines than the 1 documents"),
        ("0 10 4\n1 2:3\n", 2, 1, "more lines than the 0 documents"),
        ("2 10 4\n1 2:3\n0 2:", 3, 5, "no line end"),
        ("1 10 4\n1 2:x\n0 2:3\n", 2, 5, "'x' is not a number"),
        ("2 10 4\n1 2:x\n0 2:3", 2, 5, "'x' is not a number"),
        ("1 0 4\n1 0:3\n", 2, 3, "so no id is allowed"),
    ],
)
@pytest.mark.parametrize("block_bytes", [6, 1 << 20])
def test_fault_of_header_or_length(
    tmp_path: Path,
    text: str,
    line: int | None,
    column: int | None,
    message: str,
    block_bytes: int,
) -> None:
    path = write(tmp_path / "bad.txt", text)
    error = fault(path, block_bytes=block_bytes)
    assert (error.file, error.line, error.column) == (str(path), line, column)
    assert message in error.what


def test_missing_file_and_folder(tmp_path: Path) -> None:
    error = fault(tmp_path / "none.txt.gz")
    assert error.file == str(tmp_path / "none.txt.gz")
    assert "no such file" in error.what
    assert "cannot be read" in fault(tmp_path).what


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_damaged_compression(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    body = "".join(f"1 2:{value:.6f}\n" for value in rng.random(2000))
    path = write(tmp_path / f"a.txt{ending}", f"2000 10 4\n{body}")
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 0xFF
    for name, raw in [
        ("cut", whole[: len(whole) // 2]),
        ("cut near the end", whole[:-4]),
        ("flipped", bytes(middle)),
        ("plain text", b"1 10 4\n1 2:3\n"),
    ]:
        path.write_bytes(raw)
        error = fault(path)
        assert error.file == str(path), name
        # A flipped byte may also show as a fault of the text it decompresses to.
        assert error.line is not None or "damaged or cut short" in error.what, name


def test_empty_compressed_files(tmp_path: Path) -> None:
    assert "the file is empty" in fault(write(tmp_path / "a.gz", "")).what
    (tmp_path / "b.xz").write_bytes(b"")
    assert fault(tmp_path / "b.xz").file == str(tmp_path / "b.xz")


@pytest.mark.parametrize("block_bytes", [16, 64, 1 << 20])
def test_endless_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(xc_io, "MAX_LINE_BYTES", 1000)
    path = write(tmp_path / "a.txt.gz", b"2 10 4\n1 2:1\n" + b" " * 5000 + b"\n")
    if block_bytes < 1000:
        error = fault(path, block_bytes=block_bytes)
        assert error.line == 3
        assert "longer than 1000 bytes" in error.what
    else:  # within one block a long line does no harm
        assert len(read(path, block_bytes=block_bytes)) == 2


def test_endless_line_costs_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xc_io, "MAX_LINE_BYTES", 1 << 20)
    path = write(tmp_path / "a.txt.gz", b"2 10 4\n" + bytes(50 << 20))
    tracemalloc.start()
    error = fault(path, block_bytes=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.line == 2
    assert peak < 4 << 20


def test_faults_of_the_split_format(tmp_path: Path) -> None:
    features = write(tmp_path / "X.txt", "2 10\n1:0.5\n2:1\n")
    cases = [
        ("3 4\n1:1\n2:1\n0:1\n", 1, 1, "3 documents, but that of"),
        ("2 4 4\n1:1\n2:1\n", 1, 1, "three counts"),
        ("2 4\n1:1\n4:1\n", 3, 1, "label id '4' is out of range"),
        ("2 4\n1:1\n2:inf\n", 3, 3, "not finite"),
        ("2 4\n1\n2\n", 2, 1, "not an 'id:value' pair"),
        ("2 4\n1,2 3:1\n2:1\n", 2, 1, "not an 'id:value' pair"),
        ("2 4\n1:1 1:1\n2:1\n", 2, 5, "label id 1 stands twice"),
        ("2 4\n1:1\n", 1, 1, "only 1 lines follow"),
        ("2 4\n1:1\n2:1\n3:1\n", 4, 1, "more lines than the 2 documents"),
    ]
    for text, line, column, message in cases:
        labels = write(tmp_path / "Y.txt", text)
        for size in (4, 1 << 20):
            error = fault(features, labels_path=labels, block_bytes=size)
            assert (error.file, error.line, error.column) == (str(labels), line, column)
            assert message in error.what
    labels = write(tmp_path / "Y.txt", cases[0][0])
    assert str(features) in fault(features, labels_path=labels).what  # both are named
    labels = write(tmp_path / "Y.txt", "3 4\n1:1\n2:1\n0:1\n")
    short = write(tmp_path / "X.txt", "3 10\n1:0.5\n2:1\n")
    error = fault(short, labels_path=labels, block_bytes=4)
    assert (error.file, error.line) == (str(short), 1)
    joined = write(tmp_path / "X.txt", "3 10 4\n1 1:0.5\n1 2:1\n1 2:1\n")
    assert fault(joined, labels_path=labels).file == str(joined)


# ---- real data ----


@pytest.mark.skipif(not BIBTEX.is_dir(), reason="the bibtex data are not beside the repository")
def test_bibtex() -> None:
    for split, rows in (("train", 4880), ("test", 2515)):
        path = BIBTEX / f"{split}.txt.xz"
        reader = open_xc(path, block_bytes=100_000)
        assert (reader.num_documents, reader.num_features, reader.num_labels) == (rows, 1836, 159)
        found = documents(list(reader.blocks()))
        assert found == slow_parse(lzma.decompress(path.read_bytes()).decode())
        assert all(math.isfinite(value) for _, pairs in found for _, value in pairs)
