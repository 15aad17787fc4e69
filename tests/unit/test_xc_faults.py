"""Every fault of a line by its place, and that the fast and the slow path judge alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xc_files import fault, quick, read, write

from ray_xml import xc_faults
from ray_xml.errors import InputError
from ray_xml.xc_faults import first_fault
from ray_xml.xc_io import open_xc
from ray_xml.xc_parse import LineForm, convert

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
    form = open_xc(path, sort_ids=sort_ids)._features.form
    with pytest.raises(AssertionError, match="without a fault"):
        first_fault(str(path), lines, 2, form)


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


# ---- halving ----


@quick
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=3).map("".join), max_size=30),
    st.integers(1, 60),
    st.booleans(),
)
def test_halving_finds_what_reading_it_all_finds(
    lines: list[str], piece_bytes: int, sort_ids: bool
) -> None:
    text = "".join(f"{line}\n" for line in lines).encode()
    form = LineForm(50, 50, "feature", sort_ids)
    if convert(text, form) is None:
        slow = first_fault("a.txt", text, 2, form, piece_bytes=len(text))
        assert str(first_fault("a.txt", text, 2, form, piece_bytes=piece_bytes)) == str(slow)


@pytest.mark.parametrize("row", [0, 1, 4_999, 9_998, 9_999])
def test_little_is_read_token_by_token(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    sizes: list[int] = []
    slow = xc_faults._read

    def measured(path: str, text: bytes, line: int, form: LineForm) -> InputError:
        sizes.append(len(text))
        return slow(path, text, line, form)

    monkeypatch.setattr(xc_faults, "_read", measured)
    lines = [b"1,2 3:0.5 4:1e-3 5:7"] * 10_000
    lines[row] += b" 6:x"
    error = first_fault("a.txt", b"\n".join([*lines, b""]), 2, LineForm(10, 4, "feature", False))
    assert (error.line, error.column) == (row + 2, 24)
    assert sizes[0] <= xc_faults.PIECE_BYTES


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_line_longer_than_a_piece(row: int) -> None:
    lines = [b"1 2:3", b"1 " + b" " * 50_000 + b"2:3", b"1 2:3"]
    lines[row] += b" 2:4"
    error = first_fault("a.txt", b"\n".join([*lines, b""]), 2, LineForm(10, 4, "feature", False))
    assert (error.line, error.column) == (row + 2, len(lines[row]) - 2)
    assert "feature id 2 stands twice" in error.what
