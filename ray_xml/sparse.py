"""Sparse rows: a light CSR matrix over arrays that may be memory-mapped.

``scipy.sparse.csr_matrix`` wants one integer type for offsets and ids, so it would copy the ids
of a memory-mapped matrix whose offsets need 64 bits. ``Csr`` keeps int64 offsets beside int32
ids and never copies on construction; what it does not offer is a ``to_scipy()`` away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse

_ENTRIES = 1 << 22  # entries handled at a time: bounds the scratch memory
_ROWS = 1 << 17  # rows of a subset handled at a time, likewise


@dataclass(frozen=True)
class Csr:
    """A sparse matrix by rows.

    Attributes:
        offsets: int64 [rows + 1], non-decreasing; row i is ids[offsets[i]:offsets[i + 1]].
            ``offsets[0]`` need not be 0, so that a slice of rows is a view.
        ids: int32 [nnz], column numbers, ascending within a row.
        values: float32 [nnz], or None for a 0/1 matrix.
        num_columns: the matrix's width.
    """

    offsets: np.ndarray
    ids: np.ndarray
    values: np.ndarray | None
    num_columns: int

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def nnz(self) -> int:
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def counts(self) -> np.ndarray:
        """int64 [rows]: the number of stored entries of each row."""
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> Csr:
        """Rows ``start:stop`` as a view."""
        return Csr(self.offsets[start : stop + 1], self.ids, self.values, self.num_columns)

    def take(self, rows: np.ndarray) -> Csr:
        """The given rows, in the given order (copied; rows may repeat)."""
        starts = np.asarray(self.offsets)[rows]
        counts = np.asarray(self.offsets)[np.asarray(rows) + 1] - starts
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        ids = np.empty(offsets[-1], self.ids.dtype)
        values = None if self.values is None else np.empty(offsets[-1], self.values.dtype)
        for low, high in pieces(offsets, _ENTRIES):
            begin, end = offsets[low], offsets[high]
            # Position p of the result reads source p - offsets[row] + starts[row].
            shift = np.repeat(starts[low:high] - offsets[low:high], counts[low:high])
            source = np.arange(begin, end) + shift
            ids[begin:end] = self.ids[source]
            if values is not None and self.values is not None:
                values[begin:end] = self.values[source]
        return Csr(offsets, ids, values, self.num_columns)

    def padded(self, rows: int) -> Csr:
        """The same rows with empty ones behind them, ``rows`` in all."""
        missing = rows - self.num_rows
        if missing == 0:
            return self
        tail = np.full(missing, self.offsets[-1], np.int64)
        return Csr(np.concatenate([self.offsets, tail]), self.ids, self.values, self.num_columns)

    def packed(self) -> Csr:
        """The same rows with offsets from 0 and only their own entries (views where possible)."""
        low, high = int(self.offsets[0]), int(self.offsets[-1])
        values = None if self.values is None else self.values[low:high]
        return Csr(self.offsets - low, self.ids[low:high], values, self.num_columns)

    def columns(self, low: int, high: int) -> Csr:
        """The columns ``low:high``, renumbered from 0 (copied)."""
        counts = np.empty(self.num_rows, np.int64)
        ids, values = [], []
        for first, last in pieces(self.offsets, _ENTRIES):
            rows = self.slice(first, last).packed()
            keep = (rows.ids >= low) & (rows.ids < high)
            before = np.zeros(len(keep) + 1, np.int64)
            np.cumsum(keep, out=before[1:])
            counts[first:last] = np.diff(before[rows.offsets])
            ids.append((rows.ids[keep] - low).astype(np.int32))
            if rows.values is not None:
                values.append(rows.values[keep])
        offsets = np.zeros(self.num_rows + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        return Csr(
            offsets,
            np.concatenate(ids) if ids else np.zeros(0, np.int32),
            None if self.values is None else np.concatenate([*values, np.zeros(0, np.float32)]),
            high - low,
        )

    def transpose(self) -> Csr:
        """The transposed matrix (copied); row ids of each column come out ascending."""
        turned = self.to_scipy().tocsc()
        values = None if self.values is None else turned.data.astype(np.float32, copy=False)
        return Csr(
            turned.indptr.astype(np.int64),
            turned.indices.astype(np.int32, copy=False),
            values,
            self.num_rows,
        )

    def row_of_entry(self) -> np.ndarray:
        """int64 [nnz]: the row that each stored entry belongs to."""
        return np.repeat(np.arange(self.num_rows), self.counts)

    def column_counts(self) -> np.ndarray:
        """int64 [num_columns]: the number of stored entries of each column."""
        counts = np.zeros(self.num_columns, np.int64)
        for first, last in pieces(self.offsets, _ENTRIES):
            counts += np.bincount(self.slice(first, last).packed().ids, minlength=len(counts))
        return counts

    def check(self, name: str) -> None:
        """Refuses a damaged matrix: scipy trusts its indices, and wrong ones would read and
        write foreign memory.

        Raises:
            ValueError: offsets, ids or values do not fit each other; ``name`` says of what.
        """
        offsets = self.offsets
        starts = self.num_rows >= 0 and offsets[0] >= 0
        # Compared, not subtracted: the difference of two numbers that lie may overflow.
        if not starts or offsets[-1] > len(self.ids) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"the offsets of {name} do not fit their ids")
        if self.values is not None and len(self.values) != len(self.ids):
            raise ValueError(f"{len(self.ids)} ids of {name}, {len(self.values)} values")
        ids = self.packed().ids
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.num_columns:
            raise ValueError(f"ids of {name} are not all in 0..{self.num_columns - 1}")

    def check_finite(self, name: str) -> None:
        """Refuses values that are NaN or infinite, of a matrix that passed ``check``.

        Raises:
            ValueError: with ``name``.
        """
        values = self.packed().values
        if values is not None and not is_finite(values):
            raise ValueError(f"values of {name} are not all finite")

    def blocks(self, rows: int) -> Iterator[tuple[int, Csr]]:
        """(first row, slice) for consecutive slices of at most ``rows`` rows."""
        for start in range(0, self.num_rows, rows):
            yield start, self.slice(start, min(start + rows, self.num_rows))

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """A scipy matrix; a 0/1 matrix gets float32 ones."""
        rows = self.packed()
        values = np.ones(rows.nnz, np.float32) if rows.values is None else rows.values
        shape = (rows.num_rows, rows.num_columns)
        return scipy.sparse.csr_matrix((values, rows.ids, rows.offsets), shape=shape)

    @staticmethod
    def from_lists(
        rows: list[list[int]], num_columns: int, values: list[list[float]] | None = None
    ) -> Csr:
        """A matrix from Python lists, for small inputs."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        ids = np.array([i for row in rows for i in row], np.int32)
        flat = None if values is None else np.array([v for row in values for v in row], np.float32)
        return Csr(offsets, ids, flat, num_columns)

    @staticmethod
    def from_scipy(matrix: scipy.sparse.spmatrix, *, binary: bool = False) -> Csr:
        """A matrix from any scipy sparse matrix; ``binary`` drops the values."""
        rows = scipy.sparse.csr_matrix(matrix)
        rows.sort_indices()
        return Csr(
            rows.indptr.astype(np.int64),
            rows.indices.astype(np.int32, copy=False),
            None if binary else rows.data.astype(np.float32, copy=False),
            rows.shape[1],
        )


@dataclass(frozen=True)
class Subset:
    """Some rows of a matrix, taken when they are asked for: what is on disk stays there.

    Attributes:
        whole: the matrix.
        rows: int64 [n], which of its rows.
    """

    whole: Csr
    rows: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.rows)

    @property
    def num_columns(self) -> int:
        return self.whole.num_columns

    def slice(self, start: int, stop: int) -> Csr:
        """Rows ``start:stop``, copied."""
        return self.whole.take(self.rows[start:stop])

    def take(self, rows: np.ndarray) -> Csr:
        """The given rows of the subset, in the given order, copied."""
        return self.whole.take(self.rows[rows])

    def blocks(self, rows: int) -> Iterator[tuple[int, Csr]]:
        """As ``Csr.blocks``."""
        for start in range(0, self.num_rows, rows):
            yield start, self.slice(start, start + rows)

    def columns(self, low: int, high: int) -> Csr:
        """As ``Csr.columns``."""
        return stacked([block.columns(low, high) for _, block in self.blocks(_ROWS)], high - low)

    def column_counts(self) -> np.ndarray:
        """As ``Csr.column_counts``."""
        counts = np.zeros(self.num_columns, np.int64)
        for _, block in self.blocks(_ROWS):
            counts += block.column_counts()
        return counts


@dataclass(frozen=True)
class Joined:
    """The rows of one matrix and behind them those of another, neither copied until asked for."""

    first: Csr | Subset
    second: Csr

    @property
    def num_rows(self) -> int:
        return self.first.num_rows + self.second.num_rows

    @property
    def num_columns(self) -> int:
        return self.first.num_columns

    def slice(self, start: int, stop: int) -> Csr:
        """Rows ``start:stop``."""
        edge = self.first.num_rows
        if stop <= edge:
            return self.first.slice(start, stop)
        rest = self.second.slice(max(start - edge, 0), min(stop, self.num_rows) - edge)
        if start >= edge:
            return rest
        return stacked([self.first.slice(start, edge), rest], self.num_columns)

    def take(self, rows: np.ndarray) -> Csr:
        """The given rows, in the given order, copied."""
        behind = rows >= self.first.num_rows
        if not behind.any():
            return self.first.take(rows)
        parts = self.first.take(rows[~behind]), self.second.take(rows[behind] - self.first.num_rows)
        place = np.empty(len(rows), np.int64)
        place[np.argsort(behind, kind="stable")] = np.arange(len(rows))
        return stacked(list(parts), self.num_columns).take(place)

    def blocks(self, rows: int) -> Iterator[tuple[int, Csr]]:
        """As ``Csr.blocks``."""
        for start in range(0, self.num_rows, rows):
            yield start, self.slice(start, start + rows)

    def columns(self, low: int, high: int) -> Csr:
        """As ``Csr.columns``."""
        # No rows say nothing of whether there are values.
        parts = [one for one in (self.first, self.second) if one.num_rows]
        return stacked([one.columns(low, high) for one in parts], high - low)

    def column_counts(self) -> np.ndarray:
        """As ``Csr.column_counts``."""
        counts: np.ndarray = self.first.column_counts() + self.second.column_counts()
        return counts


Rows = Csr | Subset | Joined


def pieces(offsets: np.ndarray, entries: int) -> Iterator[tuple[int, int]]:
    """(first row, row after the last): consecutive rows of at most ``entries`` entries together,
    or a single row of more."""
    first, last = 0, len(offsets) - 1
    while first < last:
        reached = int(np.searchsorted(offsets, offsets[first] + entries, side="right")) - 1
        after = min(max(reached, first + 1), last)
        yield first, after
        first = after


def stacked(parts: list[Csr], num_columns: int) -> Csr:
    """The rows of several matrices of one width, one after the other (copied)."""
    counts = np.concatenate([np.zeros(1, np.int64), *(part.counts for part in parts)])
    ids = np.concatenate([np.zeros(0, np.int32), *(part.packed().ids for part in parts)])
    values = [part.packed().values for part in parts]
    kept = [one for one in values if one is not None]
    together = np.concatenate(kept) if parts and len(kept) == len(parts) else None
    return Csr(np.cumsum(counts), ids, together, num_columns)


def is_finite(numbers: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; makes no array of their size."""
    if numbers.size == 0:
        return True
    # The least and the largest of several numbers are NaN if one of them is.
    return bool(np.isfinite(numbers.min()) and np.isfinite(numbers.max()))


def distinct(numbers: np.ndarray) -> np.ndarray:
    """The distinct ones of some integers from 0 up, ascending.

    ``np.unique`` may hash before it sorts, which takes up to ten times as long for the labels of
    a batch.
    """
    ordered = np.sort(numbers)
    return np.asarray(ordered[np.diff(ordered, prepend=-1) > 0])
