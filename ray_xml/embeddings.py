"""The training documents' embeddings of one cycle: a float16 file that workers fill block by block.

Label ranges read it in place, so that on one machine it lies in memory once, in the page cache,
however many processes look at it, and across machines it goes the way of the run folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class EmbeddingFile:
    """Where the embeddings lie: ``documents`` × ``dim`` numbers in float16, by rows."""

    path: Path
    documents: int
    dim: int

    @property
    def nbytes(self) -> int:
        return 2 * self.documents * self.dim

    def create(self) -> None:
        """Makes the file, at its full size, in the place of all others beside it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for old in self.path.parent.glob("*.f16"):
            old.unlink()
        with open(self.path, "wb") as file:
            file.truncate(self.nbytes)

    def write(self, first: int, embeddings: np.ndarray) -> None:
        """Stores the embeddings of documents first..first+n, float16 [n, dim]."""
        assert embeddings.dtype == np.float16
        assert embeddings.shape[1] == self.dim
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(2 * first * self.dim)
            file.write(np.ascontiguousarray(embeddings).data)

    def sync(self) -> None:
        """After a process's last ``write``: readers on other machines see what it wrote."""
        with open(self.path, "r+b") as file:
            os.fsync(file.fileno())

    def open(self) -> np.ndarray:
        """float16 [documents, dim], memory-mapped; changes to it would stay private."""
        return np.memmap(self.path, np.float16, "c", shape=(self.documents, self.dim))
