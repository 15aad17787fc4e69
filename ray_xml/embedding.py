"""Dense vectors as features: d further columns behind those of the words.

A document's vector, from whatever model, is divided by its Euclidean length and multiplied by a
weight, so that beside TF-IDF rows of unit length the weight says how much of a document is which.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ray_xml.errors import ConfigError, InputError
from ray_xml.npy_file import map_npy
from ray_xml.sparse import Csr

MOST_COLUMNS = 1 << 16
NAME = "embedding"  # what all of its columns are together, in explanations


class Embedding(BaseModel):
    """What a data set or a model says of its dense columns.

    Attributes:
        columns: d; the last features there are.
        weight: Euclidean length of each document's vector.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: int = Field(ge=1, le=MOST_COLUMNS)
    weight: float = Field(gt=0, le=1e6)

    def beside(self, words: Csr, vectors: np.ndarray) -> Csr:
        """[n, V + d]: rows of words with the documents' vectors behind them.

        Args:
            words: [n, V], with values.
            vectors: float [n, d], without ``fault``.
        """
        assert vectors.shape == (words.num_rows, self.columns)
        rows, d = words.packed(), self.columns
        wide = vectors.astype(np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        scaled = (wide * (self.weight / lengths)[:, None]).astype(np.float32)
        numbers = np.arange(rows.num_rows)
        offsets = rows.offsets + np.arange(rows.num_rows + 1) * d
        ids = np.empty(offsets[-1], np.int32)
        values = np.empty(offsets[-1], np.float32)
        own = np.arange(rows.nnz) + np.repeat(numbers * d, rows.counts)
        ids[own], values[own] = rows.ids, rows.values
        dense = (offsets[1:] - d)[:, None] + np.arange(d)
        ids[dense], values[dense] = rows.num_columns + np.arange(d), scaled
        return Csr(offsets, ids, values, rows.num_columns + d)

    def names(self) -> list[str]:
        """What the columns are called in features.txt; no term is called so."""
        return [f"#{NAME} {number}" for number in range(self.columns)]


def fault(vectors: np.ndarray) -> tuple[int, str] | None:
    """(row, what is wrong with it) of the first of float [n, d] vectors that cannot be used."""
    finite = np.isfinite(vectors).all(1)
    bad = np.flatnonzero(~finite | ~vectors.any(1))
    if len(bad) == 0:
        return None
    row = int(bad[0])
    return row, "all its numbers are 0" if finite[row] else "a number is not finite"


def check_one_source(files: str | Mapping[str, object] | None, column: str | None) -> None:
    """Raises ConfigError if vectors are given both in .npy files, one or some by split, and in a
    column."""
    if files and column is not None:
        raise ConfigError("embeddings come from an .npy file or from a column: give one of the two")


class EmbeddingFile:
    """The vectors of some documents, a row each, in an .npy file that is mapped, not read.

    Attributes:
        path: the file's. rows, columns: how many.
    """

    def __init__(self, path: str | Path) -> None:
        """
        Raises:
            InputError: it is no .npy file of a float matrix.
        """
        self.path = str(path)
        try:
            self._vectors = map_npy(path)
        except FileNotFoundError as error:
            raise InputError(self.path, "there is no such file: check the path") from error
        except (OSError, ValueError) as error:
            raise InputError(self.path, f"this is no plain .npy array: {error}") from error
        found = self._vectors
        sound = found.ndim == 2 and found.dtype.kind == "f" and found.dtype.itemsize <= 8
        if not sound or not 0 < found.shape[1] <= MOST_COLUMNS:
            what = (
                f"it holds {found.dtype} {list(found.shape)}, not float16 or float32 "
                f"[documents, up to {MOST_COLUMNS:,}]"
            )
            raise InputError(self.path, what)
        self.rows, self.columns = found.shape

    def check(self, rows: int | None, columns: int) -> None:
        """Refuses a file of other sizes.

        Args:
            rows: documents that there are; None where that is not known yet.

        Raises:
            InputError: with both.
        """
        if self.columns != columns:
            what = f"its vectors have {self.columns:,} numbers, {columns:,} are needed"
            raise InputError(self.path, f"{what}: use one model for all")
        if rows is not None and self.rows != rows:
            what = f"it has {self.rows:,} rows for {rows:,} documents"
            raise InputError(self.path, f"{what}: a row a document, in the order of the files")

    def take(self, rows: np.ndarray) -> np.ndarray:
        """float [n, d]: some rows.

        Raises:
            InputError: there is no such row, or it cannot be used.
        """
        if len(rows) and rows.max() >= self.rows:
            what = f"it has {self.rows:,} rows, and there are more documents"
            raise InputError(self.path, f"{what}: a row a document, in the order of the files")
        found = np.asarray(self._vectors[rows])
        wrong = fault(found)
        if wrong is not None:
            raise InputError(self.path, f"row {rows[wrong[0]]:,}, counted from 0: {wrong[1]}")
        return found
