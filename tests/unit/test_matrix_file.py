"""A matrix in a file: written by several at once, read in place."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from groups import Groups

from ray_xml.exchange import Exchange
from ray_xml.matrix_file import MatrixFile

DOCUMENTS, DIM, BLOCK = 103, 7, 10


def embeddings() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((DOCUMENTS, DIM)).astype(np.float16)


def file_in(folder: Path, cycle: int = 0) -> MatrixFile:
    return MatrixFile(folder / "embeddings" / f"embeddings-{cycle:04d}.f16", DOCUMENTS, DIM)


def write(file: MatrixFile, worker: int, workers: int) -> None:
    """The blocks of one of several writers, the last one first."""
    for first in reversed(range(worker * BLOCK, DOCUMENTS, workers * BLOCK)):
        file.write(first, embeddings()[first : first + BLOCK])
    file.sync()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.create()
    assert file.path.stat().st_size == file.nbytes == 2 * DOCUMENTS * DIM
    assert (file.open() == 0).all()
    write(file, 0, 1)
    found = file.open()
    assert (found.dtype, found.shape) == (np.float16, (DOCUMENTS, DIM))
    np.testing.assert_array_equal(found, embeddings())
    assert file.path.stat().st_size == file.nbytes


def test_rows_that_do_not_lie_one_after_the_other(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.create()
    file.write(0, np.asfortranarray(embeddings()))
    np.testing.assert_array_equal(file.open(), embeddings())


@pytest.mark.parametrize("wrong", [np.zeros((3, DIM), np.float32), np.zeros((3, 6), np.float16)])
def test_other_types_and_widths_are_not_written(tmp_path: Path, wrong: np.ndarray) -> None:
    file = file_in(tmp_path)
    file.create()
    with pytest.raises(AssertionError):
        file.write(0, wrong)


def test_threads_write_together(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.create()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda worker: write(file, worker, 4), range(4)))
    np.testing.assert_array_equal(file.open(), embeddings())


def group_worker(folder: Path) -> np.ndarray:
    """Writes its blocks of the file and reads all of them; runs in a group."""
    exchange, file = Exchange(), file_in(folder)
    if exchange.rank == 0:
        file.create()
    exchange.barrier()
    write(file, exchange.rank, exchange.size)
    exchange.barrier()
    return np.array(file.open())


def test_processes_write_together(groups: Groups, tmp_path: Path) -> None:
    for found in groups.run(3, group_worker, tmp_path):
        np.testing.assert_array_equal(found, embeddings())


def test_a_new_file_takes_the_place_of_all_others(tmp_path: Path) -> None:
    old = file_in(tmp_path, 0)
    old.create()
    write(old, 0, 1)
    still_open = old.open()
    (old.path.parent / "notes").write_text("mine")
    file_in(tmp_path, 1).create()
    assert {path.name for path in old.path.parent.iterdir()} == {"embeddings-0001.f16", "notes"}
    # Whoever reads the old one goes on reading it.
    np.testing.assert_array_equal(still_open, embeddings())


def test_made_anew_under_the_same_name_it_is_empty(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.create()
    write(file, 0, 1)
    before = file.open()
    file.create()
    assert (file.open() == 0).all()
    np.testing.assert_array_equal(before, embeddings())


def test_torch_reads_it_in_place_and_changes_stay_private(tmp_path: Path) -> None:
    file = file_in(tmp_path)
    file.create()
    array = file.open()
    tensor = torch.from_numpy(array)
    assert tensor.data_ptr() == array.ctypes.data
    # What is written later is seen, since nothing was copied.
    write(file, 0, 1)
    assert torch.equal(tensor, torch.from_numpy(embeddings()))
    tensor.zero_()
    np.testing.assert_array_equal(file.open(), embeddings())


def test_a_file_of_nobody_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_in(tmp_path).write(0, embeddings())
    assert not os.path.exists(file_in(tmp_path).path)
