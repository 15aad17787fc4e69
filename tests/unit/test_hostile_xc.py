"""Hostile XC files and names: bounded memory, and an error that says where."""

from __future__ import annotations

import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xc_files import fault, write

from ray_xml import xz_file
from ray_xml.errors import InputError
from ray_xml.prepare import prepare_xc
from ray_xml.xc_io import open_xc
from ray_xml.xz_file import open_xz

few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ENDINGS = ("txt", "gz", "xz")


@contextmanager
def at_most(mebibytes: int) -> Iterator[None]:
    """Fails if the block allocates more at a time."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mebibytes << 20, f"{peak / 2**20:.0f} MiB"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_header_that_claims_much_takes_nothing(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.{ending}", f"{10**12} {2**31 - 1} {2**31 - 1}\n0 1:1\n")
    with at_most(24):  # a block or two
        told = fault(path)
    assert told.what == "the header says 1000000000000 documents, but only 1 lines follow"


def test_a_path_that_cannot_be_is_told(tmp_path: Path) -> None:
    for ending in ENDINGS:
        with pytest.raises(InputError, match="cannot be read: embedded null byte"):
            open_xc(f"{tmp_path}/a\0b.{ending}")


def test_widths_beyond_the_data_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", f"1 {2**31 - 1} 3\n0 1:1\n")
    with at_most(16), pytest.raises(Exception, match="2,147,483,647 features for"):
        prepare_xc(path, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["gz", "xz"])
def test_a_bomb_of_one_line_is_refused_in_little_memory(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_xml.xc_io.MAX_LINE_BYTES", 2 << 20)
    path = write(tmp_path / f"a.{ending}", b"1 2 3\n" + b" " * (96 << 20))
    assert path.stat().st_size < 200_000
    with at_most(64):
        assert "the line is longer than" in fault(path).what
    with at_most(64), pytest.raises(InputError, match="the name is longer than"):
        prepare_xc(
            *[write(tmp_path / "b.txt", b"1 2 3\n0 1:1\n")] * 2, tmp_path / "out", label_names=path
        )


@pytest.mark.parametrize("ending", ["gz", "xz"])
def test_a_bomb_of_many_lines_is_read_in_little_memory(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.{ending}", b"20000000 2 3\n" + b"\n" * 20_000_000)
    rows = 0
    with at_most(64):
        for features, labels in open_xc(path, block_bytes=1 << 16).blocks():
            rows += features.num_rows
            assert labels.num_rows == features.num_rows
            if rows > 1_000_000:
                break
    assert rows > 1_000_000


def dictionary_of(path: Path, code: int) -> None:
    """Makes an .xz file ask for a dictionary of 4 GiB (code 40) or less."""
    raw = bytearray(path.read_bytes())
    place = raw.index(b"\x21\x01", 12)  # the LZMA2 filter and the length of its properties
    raw[place + 2] = code
    header = 12 + 4 * (raw[12] + 1)  # where the block's header, with its checksum last, ends
    raw[header - 4 : header] = zlib.crc32(raw[12 : header - 4]).to_bytes(4, "little")
    path.write_bytes(raw)


def test_a_dictionary_of_gigabytes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xz", b"1 2 3\n0 1:1\n")
    dictionary_of(path, 30)  # 128 MiB: twice what xz -9 takes
    assert next(iter(open_xc(path).blocks()))[0].num_rows == 1
    dictionary_of(path, 40)
    with pytest.raises(InputError, match=r"a\.xz: the compressed file is damaged .*emory"):
        open_xc(path)


@given(
    parts=st.lists(st.binary(max_size=300), min_size=1, max_size=3),
    padding=st.sampled_from([0, 4, 8]),
    piece=st.sampled_from([1, 7, 1 << 16]),
    size=st.sampled_from([1, 13, 1 << 16]),
)
@few
def test_xz_files_are_read_as_by_lzma(
    tmp_path: Path, parts: list[bytes], padding: int, piece: int, size: int
) -> None:
    path = tmp_path / "a.xz"
    path.write_bytes(b"".join(lzma.compress(part, preset=0) + b"\0" * padding for part in parts))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(xz_file, "_PIECE", piece)
        with open_xz(path) as file:
            found = b"".join(iter(lambda: file.read(size), b""))
    assert found == b"".join(parts)
    if not padding:  # which lzma takes for damage, against the format's description
        with lzma.open(path) as plain:
            assert plain.read() == found


@given(cut=st.integers(1, 60))
@few
def test_xz_files_cut_short_are_told(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.xz", b"1 2 3\n0 1:1\n")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"damaged or cut short|is empty"):
        list(open_xc(path).blocks())


def consistent(path: Path, **options: bool) -> None:
    """Reads a file: an InputError, or sound rows, as many as the header says."""
    told: InputError | None = None
    try:
        reader = open_xc(path, block_bytes=64, **options)
        rows = 0
        for features, labels in reader.blocks():
            features.check("features")
            features.check_finite("features")
            labels.check("labels")
            rows += features.num_rows
        assert rows == reader.num_documents
    except InputError as error:
        told = error
    assert told is None or (told.file == str(path) and len(str(told)) < 1000)


xc_like = st.lists(
    st.sampled_from(
        [b"0", b"1", b"2", b"9" * 30, b",", b":", b" ", b"\n", b"\r\n", b"\t", b"-", b"+", b".",
         b"e", b"1e999", b"nan", b"inf", b"\xff", b"\0", b"1:1", b"0 1:.5\n"]
    )
).map(b"".join)  # fmt: skip


@given(header=st.sampled_from([b"2 3 3\n", b"1 3\n", b"", b"3 3 3 3\n"]), text=xc_like)
@settings(few, max_examples=150)
def test_any_text_is_read_or_refused(tmp_path: Path, header: bytes, text: bytes) -> None:
    consistent(write(tmp_path / "a.txt", header + text))
    consistent(write(tmp_path / "a.txt", header + text), sort_ids=True)


@given(raw=st.binary(max_size=200), ending=st.sampled_from(ENDINGS), packed=st.booleans())
@few
def test_any_bytes_are_read_or_refused(
    tmp_path: Path, raw: bytes, ending: str, packed: bool
) -> None:
    path = tmp_path / f"a.{ending}"
    if packed:
        raw = (
            gzip.compress(raw) + raw[:3] if ending == "gz" else lzma.compress(raw)[: 60 + len(raw)]
        )
    path.write_bytes(raw)
    consistent(path)


@given(raw=st.binary(max_size=60))
@few
def test_any_names_are_read_or_refused(tmp_path: Path, raw: bytes) -> None:
    good = write(tmp_path / "b.txt", b"1 2 3\n0 1:1\n")
    names = write(tmp_path / "names.txt", raw)
    try:
        prepare_xc(good, good, tmp_path / "out", label_names=names, overwrite=True)
    except InputError:
        return
    text = (tmp_path / "out" / "labels.txt").read_bytes()
    assert text.count(b"\n") == 3
    assert np.array_equal(text.split(), raw.removeprefix(b"\xef\xbb\xbf").split())
