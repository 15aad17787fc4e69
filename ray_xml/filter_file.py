"""The Extreme Classification Repository's ``filter_labels_*.txt``: pairs that do not count.

A line holds two whole numbers, from 0 up: a document's place in the split's file and a label. What
comes of the pairs is told in ``truth``.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from ray_xml.errors import ConfigError, InputError
from ray_xml.sparse import Csr
from ray_xml.xc_io import open_bytes

_LINE = re.compile(rb"[ \t]*(\d{1,18})[ \t]+(\d{1,18})[ \t]*\r?\n?")
_LONGEST = 1 << 12  # bytes of a line


def check_splits(filters: Iterable[str], splits: Iterable[str]) -> None:
    """Raises ConfigError if a filter is of no split that has a file of its own."""
    for split in filters:
        if split not in splits:
            raise ConfigError(
                f"a filter of {split}: its lines name rows of that split's file, and there is none"
            )


@dataclass(frozen=True)
class FilterPairs:
    """The pairs of a file, line by line.

    Attributes:
        path: the file's.
        documents, labels: int64 [n].
    """

    path: str
    documents: np.ndarray
    labels: np.ndarray

    @staticmethod
    def read(path: str | Path) -> FilterPairs:
        """Reads a file, plain, ``.gz`` or ``.xz``.

        Raises:
            InputError: it cannot be read, or a line is no pair of numbers.
        """
        numbers = array("q")
        with open_bytes(path) as file:
            line = 0
            while text := file.readline(_LONGEST):
                line += 1
                found = _LINE.fullmatch(text)
                if found is None:
                    shown = text[:60].decode("utf-8", "replace").strip()
                    what = f"{shown!r} is no pair of a document and a label, such as '17 4031'"
                    raise InputError(str(path), what, line=line)
                numbers.extend(map(int, found.groups()))
        pairs = np.array(numbers, np.int64).reshape(-1, 2)
        return FilterPairs(str(path), pairs[:, 0], pairs[:, 1])

    def rows(self, documents: int, labels: int) -> Csr:
        """[documents, labels]: the pairs as a matrix, each once.

        Args:
            documents: of the split's file, with those that are left out of the data set.

        Raises:
            InputError: a pair lies outside, with its line.
        """
        for numbers, things, count in (
            (self.documents, "document", documents),
            (self.labels, "label", labels),
        ):
            outside = np.flatnonzero(numbers >= count)
            if len(outside):
                at = int(outside[0])
                what = f"{things} {numbers[at]}: there are {count:,} {things}s, numbered from 0"
                raise InputError(self.path, what, line=at + 1)
        ones = np.ones(len(self.labels), np.int8)
        pairs = scipy.sparse.coo_matrix((ones, (self.documents, self.labels)), (documents, labels))
        return Csr.from_scipy(pairs.tocsr(), binary=True)
