"""Label names and their numbers.

``NamedLabels`` are those that the documents name: all are met first, then numbered in the order of
their names (by code point), so that the order of the documents leaves no trace. ``NumberedLabels``
come as a list, and documents name a label by its place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ray_xml.sparse import Csr


class Labels(Protocol):
    """How many labels there are, what they are called, and which are meant."""

    @property
    def names(self) -> Sequence[str]:
        """By number; of ``NamedLabels``, those met so far in the order of their first document."""

    def meet(self, rows: list[list[str]]) -> Csr:
        """The labels of some documents [n, the labels met so far]; new names get the next
        numbers."""

    def settle(self) -> np.ndarray:
        """int64 [L]: the final number of each label, by the number it had; ``meet`` gives final
        ones from now on."""


class NamedLabels:
    """Labels as the documents name them."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    def meet(self, rows: list[list[str]]) -> Csr:
        numbers = self._numbers
        found = [numbers.setdefault(name, len(numbers)) for row in rows for name in row]
        return _matrix(rows, found, len(numbers))

    def settle(self) -> np.ndarray:
        ordered = sorted(self._numbers)
        final = {name: number for number, name in enumerate(ordered)}
        moved = np.array([final[name] for name in self._numbers], np.int64)
        self._numbers = final
        return moved


class NumberedLabels:
    """Labels by their places in a list of names, which need not differ; ``Columns.below`` is its
    length, so that only sound places come here."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def meet(self, rows: list[list[str]]) -> Csr:
        return _matrix(rows, [int(name) for row in rows for name in row], len(self.names))

    def settle(self) -> np.ndarray:
        return np.arange(len(self.names))


def _matrix(rows: list[list[str]], numbers: list[int], width: int) -> Csr:
    """The labels of each row, ascending, each once."""
    count = max(width, 1)
    keys = np.repeat(np.arange(len(rows)), [len(row) for row in rows]) * count
    keys = np.unique(keys + np.array(numbers, np.int64))
    row, ids = np.divmod(keys, count)
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=len(rows)), out=offsets[1:])
    return Csr(offsets, ids.astype(np.int32), None, width)
