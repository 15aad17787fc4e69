"""What every peer program shares: its two commands, reading, timing, writing.

    PROGRAM train   --data FOLDER --model FOLDER --threads N
    PROGRAM predict --data FOLDER --model FOLDER --threads N --out FILE.npz

The programs run in environments of their own, so this needs nothing but numpy. Timed is the
library's call alone: documents are brought into the form that it takes beforehand, and its answer
is turned into arrays afterwards.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

TOP = 5
_WARM_UP = 10  # documents asked one by one before the clock runs


class Rows(NamedTuple):
    """A sparse matrix by rows: row i is ids[offsets[i]:offsets[i + 1]]."""

    offsets: np.ndarray
    ids: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]


class Peer(Protocol):
    """A library in use; ``Any`` is whatever form its interface has."""

    def train(self, data: Path, model: Path, threads: int) -> None:
        """Trains on the files in ``data`` and saves to ``model``."""

    def load(self, model: Path, threads: int) -> None:
        """Has a saved model ready to predict with."""

    def documents(self, rows: Rows) -> Any:
        """Documents as ``predict`` takes them."""

    def predict(self, documents: Any) -> Any:
        """The best labels of each document."""

    def answers(self, predicted: Any) -> tuple[np.ndarray, np.ndarray]:
        """(labels, scores) [documents, TOP] of what ``predict`` gave, best first."""


def main(peer: Peer, arguments: Sequence[str] | None = None) -> None:
    """Runs the command that the program was called with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("train", "predict"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--singles", type=int, default=500)
    options = parser.parse_args(arguments)
    if options.command == "train":
        peer.train(options.data, options.model, options.threads)
        return
    if options.out is None:
        parser.error("predict needs --out")
    began = time.perf_counter()
    peer.load(options.model, options.threads)
    load_seconds = time.perf_counter() - began
    rows = read_rows(options.data / "test_X.npz")
    labels, scores, batch_seconds = _batch(peer, rows, options.repeats)
    one_seconds = _one_by_one(peer, rows, options.singles)
    np.savez(
        options.out,
        labels=labels,
        scores=scores,
        batch_seconds=batch_seconds,
        one_seconds=one_seconds,
        load_seconds=load_seconds,
    )


def _batch(peer: Peer, rows: Rows, repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    documents = peer.documents(rows)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        predicted = peer.predict(documents)
        seconds.append(time.perf_counter() - began)
    return (*peer.answers(predicted), np.array(seconds))


def _one_by_one(peer: Peer, rows: Rows, count: int) -> np.ndarray:
    """Seconds of one call a document, for documents spread evenly over the test split."""
    chosen = np.unique(np.linspace(0, rows.shape[0] - 1, count).astype(np.int64)).tolist()
    documents = [peer.documents(row(rows, i)) for i in chosen]
    for document in documents[:_WARM_UP]:
        peer.predict(document)
    seconds = np.zeros(len(documents))
    for place, document in enumerate(documents):
        began = time.perf_counter()
        peer.predict(document)
        seconds[place] = time.perf_counter() - began
    return seconds


def read_rows(path: Path) -> Rows:
    """Reads a file of ``scipy.sparse.save_npz``."""
    with np.load(path, allow_pickle=False) as arrays:
        low, high = (int(size) for size in arrays["shape"])
        return Rows(arrays["indptr"], arrays["indices"], arrays["data"], (low, high))


def row(rows: Rows, i: int) -> Rows:
    """One row, as a matrix (copied, so that a library may keep or change it)."""
    part = slice(int(rows.offsets[i]), int(rows.offsets[i + 1]))
    ids, values = rows.ids[part].copy(), rows.values[part].copy()
    offsets = np.array([0, len(ids)], rows.offsets.dtype)
    return Rows(offsets, ids, values, (1, rows.shape[1]))


def padded(lists: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """(labels, scores) [documents, TOP] of lists of pairs, best first; −1 where one is short."""
    labels = np.full((len(lists), TOP), -1, np.int32)
    scores = np.full((len(lists), TOP), -np.inf, np.float32)
    for i, pairs in enumerate(lists):
        for j, (label, value) in enumerate(pairs[:TOP]):
            labels[i, j], scores[i, j] = label, value
    return labels, scores
