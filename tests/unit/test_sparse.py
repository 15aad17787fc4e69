"""Csr against scipy.sparse, which does the same things more slowly or with copies."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from ray_xml import sparse
from ray_xml.sparse import Csr, Joined, Subset, distinct

SHAPES = [(1, 1), (7, 5), (40, 30), (3, 200), (5, 1)]


def random_csr(rows: int, columns: int, seed: int, *, binary: bool = False) -> Csr:
    matrix = scipy.sparse.random(rows, columns, 0.3, "csr", np.float32, rng=seed)
    return Csr.from_scipy(matrix, binary=binary)


def assert_well_formed(csr: Csr) -> None:
    assert csr.offsets.dtype == np.int64
    assert csr.ids.dtype == np.int32
    assert csr.values is None or csr.values.dtype == np.float32
    for row in range(csr.num_rows):
        ids = csr.ids[csr.offsets[row] : csr.offsets[row + 1]]
        assert (np.diff(ids) > 0).all()
        assert (ids >= 0).all()
        assert (ids < csr.num_columns).all()


def dense(csr: Csr) -> np.ndarray:
    return csr.to_scipy().toarray()


@pytest.fixture(params=SHAPES, ids=str)
def csr(request: pytest.FixtureRequest) -> Csr:
    rows, columns = request.param
    return random_csr(rows, columns, seed=rows)


def test_from_scipy_keeps_entries_and_sorts_ids() -> None:
    unsorted = scipy.sparse.csr_matrix(
        (np.array([1.0, 2.0, 3.0]), np.array([4, 0, 2]), np.array([0, 2, 3])), shape=(2, 5)
    )
    csr = Csr.from_scipy(unsorted)
    assert_well_formed(csr)
    assert np.array_equal(dense(csr), [[2, 0, 0, 0, 1], [0, 0, 3, 0, 0]])
    assert Csr.from_scipy(unsorted, binary=True).values is None


def test_from_scipy_takes_other_layouts(csr: Csr) -> None:
    again = Csr.from_scipy(csr.to_scipy().tocoo())
    assert_well_formed(again)
    assert np.array_equal(dense(again), dense(csr))


def test_from_lists() -> None:
    csr = Csr.from_lists([[0, 3], [], [2]], 4, [[1.0, 2.0], [], [3.0]])
    assert_well_formed(csr)
    assert np.array_equal(dense(csr), [[1, 0, 0, 2], [0, 0, 0, 0], [0, 0, 3, 0]])
    assert np.array_equal(dense(Csr.from_lists([[1], []], 2)), [[0, 1], [0, 0]])
    assert Csr.from_lists([], 3).to_scipy().shape == (0, 3)


def test_counts(csr: Csr) -> None:
    matrix = csr.to_scipy()
    assert (csr.num_rows, csr.num_columns) == matrix.shape
    assert csr.nnz == matrix.nnz
    assert np.array_equal(csr.counts, matrix.getnnz(axis=1))
    assert np.array_equal(csr.column_counts(), matrix.getnnz(axis=0))
    assert np.array_equal(csr.row_of_entry(), matrix.tocoo().row)


def test_slice_is_a_view_of_the_rows(csr: Csr) -> None:
    for start, stop in [(0, csr.num_rows), (1, csr.num_rows), (csr.num_rows // 2, csr.num_rows)]:
        part = csr.slice(start, stop)
        assert np.shares_memory(part.offsets, csr.offsets)
        assert part.ids is csr.ids
        assert part.nnz == csr.to_scipy()[start:stop].nnz
        assert np.array_equal(dense(part), dense(csr)[start:stop])
        assert np.array_equal(part.column_counts(), csr.to_scipy()[start:stop].getnnz(axis=0))


def test_packed_begins_at_zero_without_copying_entries(csr: Csr) -> None:
    packed = csr.slice(csr.num_rows // 2, csr.num_rows).packed()
    assert packed.offsets[0] == 0
    assert len(packed.ids) == packed.nnz
    assert packed.nnz == 0 or np.shares_memory(packed.ids, csr.ids)
    assert np.array_equal(dense(packed), dense(csr)[csr.num_rows // 2 :])


def test_take_repeats_and_reorders(csr: Csr) -> None:
    rows = np.random.default_rng(0).integers(0, csr.num_rows, 50)
    taken = csr.take(rows)
    assert_well_formed(taken)
    assert np.array_equal(dense(taken), dense(csr)[rows])
    part = csr.slice(csr.num_rows // 2, csr.num_rows)
    assert np.array_equal(dense(part.take(np.array([0]))), dense(part)[:1])
    assert csr.take(np.zeros(0, np.int64)).num_rows == 0


def test_columns(csr: Csr) -> None:
    for low, high in [(0, csr.num_columns), (0, 0), (csr.num_columns // 2, csr.num_columns)]:
        for rows in (csr, csr.slice(csr.num_rows // 2, csr.num_rows)):
            part = rows.columns(low, high)
            assert_well_formed(part)
            assert np.array_equal(dense(part), dense(rows)[:, low:high])


def test_transpose(csr: Csr) -> None:
    turned = csr.transpose()
    assert_well_formed(turned)
    assert np.array_equal(dense(turned), dense(csr).T)
    assert np.array_equal(dense(csr.slice(1, csr.num_rows).transpose()), dense(csr)[1:].T)


def test_blocks_cover_all_rows_once(csr: Csr) -> None:
    blocks = list(csr.blocks(3))
    assert [start for start, _ in blocks] == list(range(0, csr.num_rows, 3))
    assert np.array_equal(np.vstack([dense(block) for _, block in blocks]), dense(csr))


def test_binary_matrices_stay_binary() -> None:
    csr = random_csr(20, 10, seed=5, binary=True)
    for other in (
        csr.slice(3, 9),
        csr.packed(),
        csr.take(np.arange(4)),
        csr.columns(2, 7),
        csr.transpose(),
    ):
        assert other.values is None
        assert set(np.unique(dense(other))) <= {0.0, 1.0}
    assert np.array_equal(dense(csr.transpose()), dense(csr).T)


def test_no_rows_and_no_entries() -> None:
    for csr in (Csr.from_lists([], 4), Csr.from_lists([[], []], 4), Csr.from_lists([[]], 0)):
        assert csr.nnz == 0
        assert csr.packed().num_rows == csr.num_rows
        assert csr.transpose().num_rows == csr.num_columns
        assert csr.columns(0, 0).num_columns == 0
        assert len(csr.column_counts()) == csr.num_columns


def test_read_only_arrays_are_enough(csr: Csr) -> None:
    for array in (csr.offsets, csr.ids, csr.values):
        assert array is not None
        array.flags.writeable = False
    csr.take(np.arange(csr.num_rows))
    csr.transpose()
    csr.columns(0, csr.num_columns)
    csr.slice(0, 1).packed()


@pytest.fixture(params=[1, 3, 10_000], ids="{} entries".format)
def _few_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices are gone through in pieces of one row, of a few, and whole."""
    monkeypatch.setattr(sparse, "_ENTRIES", request.param)
    monkeypatch.setattr(sparse, "_ROWS", request.param)


def bumpy(binary: bool, seed: int = 0) -> Csr:
    """Rows with none to many entries, empty ones at both ends and beside each other."""
    rng = np.random.default_rng(seed)
    counts = [0, 0, 1, 12, 0, 3, 0, 0, 2, 30, 1, 5, 0]
    ids = [np.sort(rng.permutation(30)[:count]).tolist() for count in counts]
    values = [rng.standard_normal(count).tolist() for count in counts]
    return Csr.from_lists(ids, 30, None if binary else values)


ROWS = [[], [3], [0, 1], [9, 9, 9], list(range(13)), list(range(12, -1, -1)), [4, 6, 7]]


@pytest.mark.usefixtures("_few_at_a_time")
@pytest.mark.parametrize("binary", [True, False])
def test_pieces_do_not_show(binary: bool) -> None:
    for csr in (bumpy(binary), bumpy(binary).slice(3, 11)):
        whole = dense(csr)
        assert np.array_equal(csr.column_counts(), (whole != 0).sum(0))
        assert csr.column_counts().dtype == np.int64
        for low, high in [(0, 30), (0, 0), (7, 8), (11, 29)]:
            part = csr.columns(low, high)
            assert_well_formed(part)
            assert (part.values is None) == binary
            assert part.num_columns == high - low
            assert np.array_equal(dense(part), whole[:, low:high])
        for rows in ROWS:
            own = np.array(rows, np.int64)[np.array(rows, np.int64) < csr.num_rows]
            taken = csr.take(own)
            assert_well_formed(taken)
            assert (taken.values is None) == binary
            assert np.array_equal(dense(taken), whole[own])


@pytest.mark.usefixtures("_few_at_a_time")
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_a_subset_is_the_rows_taken(rows: list[int], binary: bool) -> None:
    chosen = np.array(rows, np.int64)
    subset, whole = Subset(bumpy(binary), chosen), dense(bumpy(binary))[chosen]
    assert (subset.num_rows, subset.num_columns) == whole.shape
    assert np.array_equal(subset.column_counts(), (whole != 0).sum(0))
    for start, stop in [(0, len(rows)), (0, 1), (1, 4), (2, 2), (0, 99)]:
        part = subset.slice(start, stop)
        assert_well_formed(part)
        assert np.array_equal(dense(part), whole[start:stop])
    again = np.arange(len(rows))[::-2]
    assert np.array_equal(dense(subset.take(again)), whole[again])
    for low, high in [(0, 30), (4, 4), (5, 19)]:
        part = subset.columns(low, high)
        assert_well_formed(part)
        assert part.num_columns == high - low
        assert np.array_equal(dense(part), whole[:, low:high])
        assert part.nnz == 0 or (part.values is None) == binary
    for size in (1, 4, 100):
        blocks = list(subset.blocks(size))
        assert [start for start, _ in blocks] == list(range(0, len(rows), size))
        together = [dense(block) for _, block in blocks]
        assert np.array_equal(np.vstack([whole[:0], *together]), whole)


def test_a_subset_leaves_its_matrix_where_it_is() -> None:
    csr = bumpy(binary=False)
    subset = Subset(csr, np.array([2, 9]))
    assert subset.whole.ids is csr.ids
    assert not np.shares_memory(subset.slice(0, 2).ids, csr.ids)


@pytest.mark.usefixtures("_few_at_a_time")
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("rows", [[], [3], [9, 9, 1, 4]], ids=str)
def test_joined_rows_are_those_of_one_matrix(rows: list[int], binary: bool) -> None:
    first = Subset(bumpy(binary), np.array(rows, np.int64))
    joined = Joined(first, bumpy(binary, seed=1))
    whole = np.vstack([dense(bumpy(binary))[rows], dense(bumpy(binary, seed=1))])
    total = len(whole)
    assert (joined.num_rows, joined.num_columns) == whole.shape
    assert np.array_equal(joined.column_counts(), (whole != 0).sum(0))
    for start, stop in [(0, total), (0, 1), (1, 6), (len(rows), total), (2, 2), (3, 99)]:
        part = joined.slice(start, stop)
        assert np.array_equal(dense(part), whole[start:stop])
        assert part.nnz == 0 or (part.values is None) == binary
    for taken in (np.arange(total)[::-1], np.array([total - 1, 0, total - 1, 1]), np.arange(0)):
        assert np.array_equal(dense(joined.take(taken)), whole[taken])
    for low, high in [(0, 30), (4, 4), (5, 19)]:
        assert np.array_equal(dense(joined.columns(low, high)), whole[:, low:high])
    for size in (1, 4, 100):
        together = [dense(block) for _, block in joined.blocks(size)]
        assert np.array_equal(np.vstack(together), whole)


def test_distinct_numbers_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    for size in (0, 1, 500):
        numbers = random.integers(200, size=size, dtype=np.int32)
        found = distinct(numbers)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, np.unique(numbers))
