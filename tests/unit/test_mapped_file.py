"""Arrays written piece by piece, mapped into memory, and what damage is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ray_xml import mapped_file
from ray_xml.mapped_file import ArraysWriter, map_arrays, read_metadata

ARRAYS = {
    "ids": np.arange(7, dtype=np.int32),
    "values": np.linspace(0, 1, 5, dtype=np.float32),
    "offsets": np.array([0, 3, 2**40], np.int64),
    "none": np.zeros(0, np.float32),
}


def write(path: Path, step: int = 2) -> None:
    with ArraysWriter(path, {"format_version": "9"}) as out:
        for name, array in ARRAYS.items():
            out.append(name, array[:0])
            for low in range(0, len(array), step):
                out.append(name, array[low : low + step])


@pytest.mark.parametrize("step", [1, 2, 100])
def test_what_is_written_is_mapped_and_is_a_safetensors_file(tmp_path: Path, step: int) -> None:
    path = tmp_path / "a.safetensors"
    write(path, step)
    assert read_metadata(path) == {"format_version": "9"}
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format_version": "9"}
    for found in (map_arrays(path), load_file(path)):
        assert found.keys() == ARRAYS.keys()
        for name, array in found.items():
            assert array.dtype == ARRAYS[name].dtype
            assert array.flags.aligned
            assert np.array_equal(array, ARRAYS[name])
    assert not map_arrays(path)["ids"].flags.writeable
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]


def test_files_of_safetensors_are_mapped(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "a")
    assert read_metadata(tmp_path / "a") == {}
    for name, array in map_arrays(tmp_path / "a").items():
        assert np.array_equal(array, ARRAYS[name])


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write(path)
    before, mapped = path.read_bytes(), map_arrays(path)

    def spoil() -> None:
        with ArraysWriter(path, {}) as out:
            out.append("ids", np.zeros(3, np.int32))
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        spoil()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("ray_xml.mapped_file.os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    with ArraysWriter(path, {}) as out:
        out.append("ids", np.zeros(3, np.int32))
    assert map_arrays(path)["ids"].tolist() == [0, 0, 0]
    assert np.array_equal(mapped["ids"], ARRAYS["ids"])  # who mapped the old one keeps it


def with_header(path: Path, change: Any) -> None:
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    text = json.dumps(change(json.loads(raw[8:end]))).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[end:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: {**h, "ids": {**h["ids"], "shape": [6]}}, "ids does not lie"),
        (lambda h: {**h, "ids": {**h["ids"], "shape": [7, 1]}}, "ids is described as"),
        (lambda h: {**h, "ids": {**h["ids"], "shape": ["7"]}}, "ids "),
        (lambda h: {**h, "ids": {**h["ids"], "dtype": "F64"}}, "ids is described as"),
        (lambda h: {**h, "ids": {**h["ids"], "data_offsets": [-28, 0]}}, "ids does not lie"),
        (lambda h: {**h, "ids": {**h["ids"], "data_offsets": [26, 54]}}, "ids does not lie"),
        (lambda h: {**h, "ids": {**h["ids"], "data_offsets": [0, 10**9]}}, "ids does not lie"),
        (lambda h: {**h, "ids": {**h["ids"], "data_offsets": [24.0, 52.0]}}, "ids does not lie"),
        (lambda h: {**h, "ids": 3}, "ids is described as 3"),
        (lambda h: {k: v for k, v in h.items() if k != "ids"}, "bytes, the header says"),
        (lambda h: [h], "no table"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_told(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "a"
    write(path)
    with_header(path, lambda header: header)
    map_arrays(path)
    with_header(path, change)
    with pytest.raises(ValueError, match=message):
        map_arrays(path)


@pytest.mark.parametrize(
    "raw",
    [b"", b"abc", b"no arrays at all", bytes(30), b"\xff" * 64, (2).to_bytes(8, "little") + b"{]"],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a").write_bytes(raw)
    for read in (map_arrays, read_metadata):
        with pytest.raises(ValueError, match=r"header|Expecting"):
            read(tmp_path / "a")


def test_cut_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path)
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match=r"header|does not lie|bytes"):
            map_arrays(path)
    path.write_bytes(raw + b"\0")
    with pytest.raises(ValueError, match="bytes, the header says"):
        map_arrays(path)


def test_metadata_that_is_no_table_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with_header(tmp_path / "a", lambda header: {**header, "__metadata__": [1]})
    with pytest.raises(ValueError, match="its metadata is no table"):
        read_metadata(tmp_path / "a")


def test_deep_headers_are_told(tmp_path: Path) -> None:
    text = b"[" * 100_000
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"nested too deep|Expecting"):
        map_arrays(tmp_path / "a")
    assert len(text) < mapped_file._MOST_HEADER
