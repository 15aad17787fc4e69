"""The largest entries of sparse rows, against sorting row by row."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from ray_xml import top_entries as module
from ray_xml.top_entries import heaviest, largest, top_entries


def random_rows(seed: int, n: int = 30, columns: int = 40) -> scipy.sparse.csr_matrix:
    """Rows of very different lengths, some empty, with equal, negative and explicit zero values."""
    rng = np.random.default_rng(seed)
    lists = [
        rng.permutation(columns)[: rng.integers(0, columns) * rng.integers(0, 2)] for _ in range(n)
    ]
    ids = np.concatenate(lists).astype(np.int32)  # not sorted within a row
    values = rng.integers(-2, 6, len(ids)).astype(np.float32) / 4
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in lists])])
    return scipy.sparse.csr_matrix((values, ids, offsets), (n, columns))


def slow(matrix: scipy.sparse.csr_matrix, k: int) -> list[list[tuple[float, int, int]]]:
    """(value, column, place in data) of each row's k largest, ties by rising column."""
    rows = []
    for row in range(matrix.shape[0]):
        places = range(matrix.indptr[row], matrix.indptr[row + 1])
        held = [(-float(matrix.data[p]), int(matrix.indices[p]), p) for p in places]
        rows.append([(-v, column, p) for v, column, p in sorted(held) if v < 0][:k])
    return rows


@pytest.mark.parametrize("cells", [1, 50, 1 << 24])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_against_sorting(k: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS", cells)
    for seed in range(5):
        matrix = random_rows(seed)
        columns, values = top_entries(matrix, k)
        places, again = top_entries(matrix, k, places=True)
        assert values.dtype == np.float32
        assert columns.dtype == places.dtype == np.int64
        assert columns.shape == places.shape == values.shape
        assert np.array_equal(values, again)
        assert values.shape[1] == min(k, np.diff(matrix.indptr).max())
        for row, expected in enumerate(slow(matrix, k)):
            count = len(expected)
            assert values[row, :count].tolist() == [value for value, _, _ in expected]
            assert columns[row, :count].tolist() == [column for _, column, _ in expected]
            assert places[row, :count].tolist() == [place for _, _, place in expected]
            assert not values[row, count:].any()
        cut = heaviest(matrix, k)
        kept = sorted(place for row in slow(matrix, k) for _, _, place in row)
        assert cut.shape == matrix.shape
        assert np.array_equal(cut.indices, matrix.indices[kept])
        assert np.array_equal(cut.data, matrix.data[kept])
        assert np.diff(cut.indptr).tolist() == [len(row) for row in slow(matrix, k)]


def test_a_row_s_result_depends_on_that_row_alone() -> None:
    rng = np.random.default_rng(0)
    tied = scipy.sparse.csr_matrix(rng.integers(0, 3, (1, 200)).astype(np.float32))
    filler = scipy.sparse.random(5, 200, 0.9, "csr", np.float32, rng=rng)
    together = scipy.sparse.vstack([filler[:, :200], tied], format="csr")
    longer = scipy.sparse.csr_matrix(np.ones((1, 3000), np.float32))
    wide = scipy.sparse.vstack(
        [longer, scipy.sparse.csr_matrix((tied.data, tied.indices, tied.indptr), (1, 3000))]
    ).tocsr()
    alone = top_entries(tied, 7)[0]
    assert alone[0].tolist() == np.flatnonzero(tied.toarray()[0] == 2)[:7].tolist()
    assert np.array_equal(top_entries(together, 7)[0][-1:], alone)
    assert np.array_equal(top_entries(wide, 7)[0][-1:], alone)


@pytest.mark.parametrize("shape", [(0, 5), (3, 5)])
def test_nothing_at_all(shape: tuple[int, int]) -> None:
    columns, values = top_entries(scipy.sparse.csr_matrix(shape, dtype=np.float32), 4)
    assert columns.shape == values.shape == (shape[0], 0)
    assert heaviest(scipy.sparse.csr_matrix(shape, dtype=np.float32), 4).shape == shape


@pytest.mark.parametrize("k", [1, 3, 100])
def test_the_largest_of_one_row(k: int) -> None:
    for seed in range(20):
        values = np.random.default_rng(seed).integers(-3, 5, 40).astype(np.float32)
        expected = sorted((p for p in range(40) if values[p] > 0), key=lambda p: (-values[p], p))
        assert largest(values, k).tolist() == expected[:k]
    assert largest(np.zeros(5, np.float32), k).tolist() == []
    assert largest(np.zeros(0, np.float32), k).tolist() == []


def test_one_long_row_does_not_pad_the_others() -> None:
    """Padded to the longest, these rows would need 400 GB."""
    n, columns = 50_000, 2_000_000
    counts = np.full(n, 2)
    counts[7] = columns
    offsets = np.concatenate([[0], np.cumsum(counts)])
    ids = np.empty(offsets[-1], np.int32)
    ids[:] = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    matrix = scipy.sparse.csr_matrix((np.ones(len(ids), np.float32), ids, offsets), (n, columns))
    columns_, values = top_entries(matrix, 3)
    assert columns_[7].tolist() == [0, 1, 2]
    assert values[:7].tolist() == [[1, 1, 0]] * 7
