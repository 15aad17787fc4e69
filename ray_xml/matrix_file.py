"""A matrix in a file of the run folder that workers fill together, block by block.

The training documents' embeddings and the classifier's rows go from the workers to the label
ranges this way. The ranges read the file in place, so that on one machine it lies in memory once,
in the page cache, however many processes look at it; across machines it goes the way of the run
folder; and a range that lost its memory finds it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_xml.disk import sync, write_all


@dataclass(frozen=True)
class MatrixFile:
    """Where ``rows`` × ``dim`` numbers lie, by rows.

    Attributes:
        path: ``WHAT-CYCLE`` and an ending; a new file takes the place of those with the same WHAT.
        dtype: name of the numbers' numpy type.
    """

    path: Path
    rows: int
    dim: int
    dtype: str = "float16"

    @property
    def nbytes(self) -> int:
        return self.rows * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * self.dim

    def create(self) -> None:
        """Makes the file, at its full size, in the place of all earlier ones beside it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        what = self.path.name.partition("-")[0]
        for old in self.path.parent.glob(f"{what}-*"):
            old.unlink()
        with open(self.path, "wb") as file:
            file.truncate(self.nbytes)

    def write(self, first: int, block: np.ndarray) -> None:
        """Stores rows first..first+n: [n, dim] of the file's type."""
        assert block.dtype == self.dtype
        assert block.shape[1] == self.dim
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(first * self._row_bytes)
            write_all(file, np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)

    def sync(self) -> None:
        """After a process's last ``write``: readers on other machines see what it wrote."""
        sync(self.path)

    def open(self) -> np.ndarray:
        """[rows, dim], memory-mapped; changes to it would stay private.

        Raises:
            FileNotFoundError, ValueError: it is not there, or is not of this size.
        """
        held = self.path.stat().st_size
        if held != self.nbytes:
            raise ValueError(f"{self.path} has {held} bytes instead of {self.nbytes}")
        return np.memmap(self.path, self.dtype, "c", shape=(self.rows, self.dim))
