"""Which documents of one lot go to test, when a share of them is asked for.

A document is drawn by a hash of its text and the seed, so that neither the order of the rows nor
other rows decide, and equal texts go the same way: none of test is in train. Then each label that
train would lack takes its first drawn document back, with all its copies.
"""

from __future__ import annotations

import numpy as np

from ray_xml.sparse import Csr


class Draw:
    """The split of one lot.

    Args:
        share: of the texts to draw, between 0 and 1; 0 draws none.
        seed: another one draws others.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._below = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
        self._key = np.random.default_rng([seed, 0x7E57]).integers(2**64, dtype=np.uint64)
        self._moved = np.zeros(0, np.uint64)
        self._hashes: list[np.ndarray] = []
        self._labels: list[Csr] = []
        self._in_train = np.zeros(0, np.int64)

    @property
    def moved(self) -> int:
        """Different texts that were drawn and taken back."""
        return len(self._moved)

    def drawn(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: the documents drawn, before any is taken back.

        Args:
            hashes: uint64 [n], of their texts.
        """
        # The finaliser of SplitMix64 (public domain): every bit goes through to every other.
        x = hashes ^ self._key
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return (x ^ (x >> np.uint64(31))) < self._below

    def in_test(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: the documents of test, once ``keep_labels`` was called."""
        return self.drawn(hashes) & ~np.isin(hashes, self._moved)

    def see(self, hashes: np.ndarray, labels: Csr) -> None:
        """Documents of the lot, with labels [n, the labels met so far]."""
        drawn = self.drawn(hashes)
        if labels.num_columns > len(self._in_train):
            grown = np.zeros(max(labels.num_columns, 2 * len(self._in_train)), np.int64)
            grown[: len(self._in_train)] = self._in_train
            self._in_train = grown
        kept = labels.take(np.flatnonzero(~drawn))
        self._in_train += np.bincount(kept.ids, minlength=len(self._in_train))
        self._hashes.append(hashes[drawn])
        self._labels.append(labels.take(np.flatnonzero(drawn)))

    def keep_labels(self) -> None:
        """Takes documents back until train has one of every label."""
        moved: set[int] = set()
        have = self._in_train > 0
        for hashes, labels in zip(self._hashes, self._labels, strict=True):
            lacking = np.flatnonzero(~have[labels.ids])
            for row in np.unique(labels.row_of_entry()[lacking]):
                ids = labels.ids[labels.offsets[row] : labels.offsets[row + 1]]
                if not have[ids].all():
                    have[ids] = True
                    moved.add(int(hashes[row]))
        self._moved = np.array(sorted(moved), np.uint64)
        self._hashes, self._labels = [], []
        self._in_train = np.zeros(0, np.int64)
