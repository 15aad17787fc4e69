"""The fast path from text to sparse rows, against a slow obvious parser and Python's numbers."""

from __future__ import annotations

import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from xc_files import fault, quick, read, slow_parse, write

from ray_xml.xc_parse import TOO_LARGE, LineForm, convert

FORM = LineForm(10, 4, "feature", sort_ids=False)


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


@quick
@given(good_text(), st.integers(1, 60))
def test_random_files_match_the_slow_parser(tmp_path: Path, text: str, block_bytes: int) -> None:
    path = write(tmp_path / "a.txt", text)
    assert read(path, block_bytes=block_bytes) == slow_parse(text)


def test_numbers_are_those_of_python() -> None:
    """Every text of up to six of these characters, alone and between other values."""
    for length in range(7):
        for characters in itertools.product("1.+e", repeat=length):
            token = "".join(characters)
            try:
                expected = float(token)
            except ValueError:
                expected = np.inf
            for line in (f"2:{token}\n", f"1 2:3e1 5:{token} 7:.5\n1:1\n"):
                converted = convert(line.encode(), FORM)
                assert (converted is None) == (abs(expected) >= TOO_LARGE), line
                if converted is not None:
                    assert np.float32(expected) in converted[0].values  # type: ignore[operator]


def test_no_warning_filter_is_needed_or_touched() -> None:
    """Warning filters belong to the whole process, and several threads may read."""
    text = b"1 2:1.5 3:1e2\n" * 2000
    bad = text + b"1 2:1.5.5\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda lines: convert(lines, FORM), [text, bad] * 20))
        assert warnings.filters == filters
    assert [result is None for result in results] == [False, True] * 20
