"""A copy of a data set is whole and checked, or not there."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ray_xml.data_copy import copy_of, open_copy, receive
from ray_xml.errors import DataSetError
from ray_xml.store import DataSet


def pieces(data: DataSet, name: str, size: int, each: int = 1000) -> Iterator[np.ndarray]:
    content = np.fromfile(data.path / name, np.uint8)
    assert len(content) == size
    for first in range(0, size, each):
        yield content[first : first + each]


def copied(data: DataSet, cache: Path) -> bool:
    return receive(cache, data.meta, lambda name, size: pieces(data, name, size))


def test_a_copy_is_the_same_and_made_once(data: DataSet, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache"
    assert open_copy(cache, data.meta.checksum) is None
    assert copied(data, cache)
    found = open_copy(cache, data.meta.checksum)
    assert found is not None
    found.verify()
    assert found.meta == data.meta
    for file in data.path.iterdir():
        if file.suffix == ".arrow":
            assert (found.path / file.name).read_bytes() == file.read_bytes()

    def refuse(name: str, size: int) -> Iterator[np.ndarray]:
        raise AssertionError(f"{name} was asked for again")

    assert not receive(cache, data.meta, refuse)


def test_a_damaged_copy_is_replaced(data: DataSet, tmp_path: Path) -> None:
    assert copied(data, tmp_path)
    file = copy_of(tmp_path, data.meta.checksum) / "train.arrow"
    file.write_bytes(file.read_bytes()[:-5])
    assert open_copy(tmp_path, data.meta.checksum) is None
    assert copied(data, tmp_path)
    assert file.read_bytes() == (data.path / "train.arrow").read_bytes()


@pytest.mark.parametrize("fault", ["short", "long", "other"])
def test_what_arrives_wrong_leaves_nothing(data: DataSet, tmp_path: Path, fault: str) -> None:
    def wrong(name: str, size: int) -> Iterator[np.ndarray]:
        parts = list(pieces(data, name, size))
        if name == "test.arrow":
            if fault == "other":
                parts[0] = parts[0] ^ np.uint8(1)
            parts = parts[:-1] if fault == "short" else parts
            parts = [*parts, parts[0]] if fault == "long" else parts
        yield from parts

    with pytest.raises(DataSetError, match=r"test\.arrow arrived with \d+ bytes and another"):
        receive(tmp_path, data.meta, wrong)
    assert open_copy(tmp_path, data.meta.checksum) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_an_end_in_the_middle_leaves_nothing(data: DataSet, tmp_path: Path) -> None:
    def broken(name: str, size: int) -> Iterator[np.ndarray]:
        yield next(pieces(data, name, size))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        receive(tmp_path, data.meta, broken)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataSetError, match=r"file.* cannot be written"):
        copied(data, tmp_path / "file" / "cache")


def _copy_and_tell(path: str, cache: str, results: multiprocessing.Queue) -> None:
    results.put(copied(DataSet.open(path), Path(cache)))


def test_processes_take_turns(data: DataSet, tmp_path: Path) -> None:
    """Of several that come at once, one receives and the others find its copy."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (str(data.path), str(tmp_path), results)
    started = [context.Process(target=_copy_and_tell, args=arguments) for _ in range(3)]
    for process in started:
        process.start()
    told = sorted(results.get(timeout=60) for _ in started)
    for process in started:
        process.join(60)
    assert told == [False, False, True]
