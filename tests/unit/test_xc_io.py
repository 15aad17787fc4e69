"""The XC reader against a slow obvious parser, and every fault by its place."""

from __future__ import annotations

import gzip
import lzma
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ray_xml import xc_io
from ray_xml.errors import InputError
from ray_xml.sparse import Csr
from ray_xml.xc_io import open_xc

BIBTEX = Path(__file__).parents[3] / "shared" / "data" / "bibtex"
Document = tuple[list[int], list[tuple[int, float]]]  # labels, features


def write(path: Path, text: str | bytes) -> Path:
    raw = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(
        gzip.compress(raw) if path.suffix == ".gz" else
        lzma.compress(raw) if path.suffix == ".xz" else raw
    )  # fmt: skip
    return path


def documents(blocks: list[tuple[Csr, Csr]]) -> list[Document]:
    found: list[Document] = []
    for features, labels in blocks:
        assert features.num_rows == labels.num_rows
        assert features.offsets.dtype == labels.offsets.dtype == np.int64
        assert features.ids.dtype == labels.ids.dtype == np.int32
        assert features.values is not None
        assert features.values.dtype == np.float32
        assert labels.values is None
        for row in range(features.num_rows):
            low, high = features.offsets[row : row + 2]
            pairs = zip(features.ids[low:high], features.values[low:high], strict=True)
            ids = labels.ids[labels.offsets[row] : labels.offsets[row + 1]]
            found.append(([int(i) for i in ids], [(int(i), float(v)) for i, v in pairs]))
    return found


def read(path: Path, **options: object) -> list[Document]:
    return documents(list(open_xc(path, **options).blocks()))  # type: ignore[arg-type]


def fault(path: Path, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    return caught.value


def slow_parse(text: str) -> list[Document]:
    """Only for files without faults."""
    found: list[Document] = []
    for line in text.split("\n")[1:-1]:
        labels: list[int] = []
        pairs: list[tuple[int, float]] = []
        for number, token in enumerate(line.replace("\t", " ").rstrip("\r").split(" ")):
            if ":" in token:
                pairs.append((int(token.split(":")[0]), float(np.float32(token.split(":")[1]))))
            elif token:
                assert number == 0
                labels = [int(label) for label in token.split(",")]
        found.append((labels, pairs))
    return found


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


def test_sort_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "3 10 9\n3,1 5:1 2:7 9:3\n0 1:1\n8,7 3:3 2:2\n")
    assert read(path, sort_ids=True) == [
        ([1, 3], [(2, 7.0), (5, 1.0), (9, 3.0)]),
        ([0], [(1, 1.0)]),
        ([7, 8], [(2, 2.0), (3, 3.0)]),
    ]
    error = fault(path)
    assert (error.line, error.column) == (2, 3)
    assert "ascending" in error.what


def test_widest_ids_and_extreme_values(tmp_path: Path) -> None:
    most, top = 2**31 - 1, "3.4028235e38"
    text = f"1 {most} {most}\n{most - 1} 0:1e-400 007:{top} {most - 1}:-{top}\n"
    [(labels, pairs)] = read(write(tmp_path / "a.txt", text))
    assert labels == [most - 1]
    assert pairs == [(0, 0.0), (7, float(np.float32(top))), (most - 1, -float(np.float32(top)))]


def test_huge_row_count_costs_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", f"{10**12} 10 4\n1 2:3\n")
    tracemalloc.start()
    error = fault(path, block_bytes=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
    assert (error.line, error.column) == (1, 1)
    assert "only 1 lines follow" in error.what


ids = st.lists(st.integers(0, 49), unique=True, max_size=6).map(sorted)
value = st.floats(-1e30, 1e30).map(repr) | st.sampled_from(["1", "0.25", "+3.", ".5", "2E-3", "-0"])


@st.composite
def good_text(draw: st.DrawFn) -> str:
    lines = []
    for _ in range(draw(st.integers(0, 8))):
        features = draw(ids)
        gap = draw(st.sampled_from([" ", "  ", "\t"]))
        labels = ",".join(map(str, draw(ids)))
        text = labels + "".join(f"{gap}{i}:{draw(value)}" for i in features)
        if not labels and draw(st.booleans()):
            text = text.lstrip()
        lines.append(text + draw(st.sampled_from(["", " "])))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return end.join([f"{len(lines)} 50 50", *lines, ""])


quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@quick
@given(good_text(), st.integers(1, 60))
def test_random_files_match_the_slow_parser(tmp_path: Path, text: str, block_bytes: int) -> None:
    path = write(tmp_path / "a.txt", text)
    assert read(path, block_bytes=block_bytes) == slow_parse(text)


PIECES = ["0", "1", "2", "3", "49", "50", ",", ":", " ", "\n", "1:2", " 3:4", "-", "+", ".", "e"]
PIECES += ["1e", "1.5", "nan", "inf", "\r", "\t", "\x00", "é", "1:1e39", "-1", "1:1.2.3", "1:2-3"]
PIECES += ["x", "9" * 30, "0,1", ",2", " 5:.5", " 7:-1e-3 "]


def outcome(path: Path, **options: object) -> tuple[str, InputError | None]:
    try:
        return str(read(path, **options)), None
    except InputError as error:
        return str(error), error


@quick
@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.integers(1, 40), st.booleans()
)
def test_broken_files(tmp_path: Path, body: str, block_bytes: int, sort_ids: bool) -> None:
    """Whatever the file: InputError or a result, the same at any block size.

    The fast and the slow path judge alike: where the fast one refuses, the slow one must find a
    fault (or it raises AssertionError), and where the fast one accepts, it must find none.
    """
    text = f"{body.count(chr(10)) + 1} 50 50\n{body}\n"
    path = write(tmp_path / "a.txt", text)
    said, error = outcome(path, block_bytes=block_bytes, sort_ids=sort_ids)
    assert said == outcome(path, sort_ids=sort_ids)[0]
    if error is not None:
        assert error.line is not None
        assert error.column is not None
        return
    lines = f"{body}\n".encode().replace(b"\r\n", b"\n").replace(b"\t", b" ")
    source = open_xc(path, sort_ids=sort_ids)._features
    with pytest.raises(AssertionError, match="without a fault"):
        source._first_fault(lines, 2, xc_io._roles(with_labels=True))


# ---- faults ----

FAULTS = {
    # Each in line 3 of a file with 10 features and 4 labels: text, column, part of the message.
    "feature out of range": ("1 2:1 10:1", 7, "feature id '10' is out of range"),
    "label out of range": ("1,4 2:1", 3, "label id '4' is out of range"),
    "id of many digits": ("1 123456789012345678901234567890:1", 3, "out of range"),
    "negative feature": ("1 -2:1", 3, "negative"),
    "negative label": ("-1 2:1", 1, "negative"),
    "id with a point": ("1 2.0:1", 3, "not a whole number"),
    "id with an exponent": ("1 1e0:1", 3, "not a whole number"),
    "label with a plus": ("+1 2:1", 1, "not a whole number"),
    "word as id": ("1 two:1", 3, "not a whole number"),
    "word as label": ("one 2:1", 1, "not a whole number"),
    "duplicate feature": ("1 2:1 3:1 3:2", 11, "feature id 3 stands twice"),
    "duplicate label": ("2,2 2:1", 3, "label id 2 stands twice"),
    "unsorted features": ("1 3:1 2:1", 7, "feature id 2 comes after 3"),
    "unsorted labels": ("3,1 2:1", 3, "label id 1 comes after 3"),
    "nan": ("1 2:nan", 5, "'nan' is not finite"),
    "infinity": ("1 2:-Infinity", 5, "not finite"),
    "too large": ("1 2:1 3:3.5e38", 9, "too large"),
    "overflowing": ("1 2:1e999", 5, "too large"),
    "word as value": ("1 2:big", 5, "'big' is not a number"),
    "two points": ("1 2:1.2.3", 5, "'1.2.3' is not a number"),
    "only a sign": ("1 2:-", 5, "'-' is not a number"),
    "open exponent": ("1 2:1e 3:1", 5, "'1e' is not a number"),
    "glued numbers": ("1 2:1-2", 5, "'1-2' is not a number"),
    "hexadecimal": ("1 2:0x1", 5, "not a number"),
    "underscore": ("1 2:1_0", 5, "not a number"),
    "no value": ("1 2: 3:1", 5, "a value is missing"),
    "no value at the end": ("1 2:", 5, "a value is missing"),
    "no id": ("1 :5", 3, "an id is missing before ':'"),
    "empty label": ("1,,2 2:1", 3, "an id is missing before ','"),
    "first label empty": (",2 2:1", 1, "an id is missing before ','"),
    "last label empty": ("1, 2:1", 3, "a label is missing"),
    "labels after a space": (" 1,2 2:1", 2, "labels stand at the line's beginning"),
    "second label list": ("1 2 2:1", 3, "not a 'feature:value' pair"),
    "pair in the labels": ("1,2:1", 3, "',' or ':' too many"),
    "two colons": ("1 2:3:4", 5, "',' or ':' too many"),
    "comma in a value": ("1 2:3,4", 5, "',' or ':' too many"),
    "NUL byte": ("1 2:\x001", 5, "byte 0x00"),
    "non-ASCII": ("1 2:1 3:½", 9, "byte 0xc2"),
    "lone carriage return": ("1 2:1\r3:1", 5, "byte 0x0d"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("ending", "block_bytes"), [("", 1 << 20), ("", 5), (".gz", 64)])
def test_fault_in_a_line(tmp_path: Path, name: str, ending: str, block_bytes: int) -> None:
    text, column, message = FAULTS[name]
    # The following line has faults of its own, which must not be named instead.
    path = write(tmp_path / f"bad.txt{ending}", f"4 10 4\n0 1:1\n{text}\n9 x:nan\n0 1:1\n")
    error = fault(path, block_bytes=block_bytes)
    assert (error.file, error.line, error.column) == (str(path), 3, column)
    assert message in error.what
    assert str(error).startswith(f"{path}:3:{column}: ")


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ("1 3:1 2:1 3:2", 11, "feature id 3 stands twice"),
        ("3,1,3 2:1", 5, "label id 3 stands twice"),
        ("3,2,4 2:1", 5, "label id '4' is out of range"),
    ],
)
def test_faults_that_sorting_does_not_mend(
    tmp_path: Path, line: str, column: int, message: str
) -> None:
    error = fault(write(tmp_path / "a.txt", f"2 10 4\n1,0 2:1\n{line}\n"), sort_ids=True)
    assert (error.line, error.column) == (3, column)
    assert message in error.what


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
