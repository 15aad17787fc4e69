"""Predictions to one file, streamed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ray_xml.errors import ConfigError
from ray_xml.predict_blocks import blocks
from ray_xml.predict_documents import Predictions, at_least
from ray_xml.predict_inputs import cut, find_inputs
from ray_xml.predict_table import schema, table
from ray_xml.predictor import Predictor
from ray_xml.sparse import Csr

ENDINGS = (".jsonl", ".npz", ".parquet")
_ROWS = 65536  # documents read at a time


def documents(source: str, split: str, num_features: int) -> Iterator[Csr]:
    """Blocks of the features of what ``predict_inputs`` finds at ``source``.

    Args:
        num_features: the model's, for files that do not say their own.
    """
    files = find_inputs(source, split)
    for part in cut(files, max((file.rows for file in files), default=0) or 1):
        for block in blocks(part, num_features, _ROWS):
            yield block.features


class Sink(Protocol):
    """Takes predictions block by block."""

    def write(self, block: Predictions) -> None: ...


@contextmanager
def sink(out: str | None, names: list[str] | None) -> Iterator[Sink]:
    """Opens where predictions go: JSON lines, .npz or Parquet by ending; None is standard output.

    A file appears under its name only when it is complete.

    Args:
        names: label names to write beside the numbers, if there are any.

    Raises:
        ConfigError: an unknown ending, or the folder does not exist.
    """
    if out is None:
        yield _Lines(sys.stdout, names)
        return
    path = Path(out)
    if path.suffix not in ENDINGS:
        raise ConfigError(
            f"--out {out}: the ending must be one of {', '.join(ENDINGS)}; a folder "
            "of parts is for --workers"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {path.parent}; make it first")
    draft = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        if path.suffix == ".jsonl":
            with open(draft, "w", encoding="utf-8") as file:
                yield _Lines(file, names)
        elif path.suffix == ".npz":
            arrays = _Arrays()
            yield arrays
            arrays.save(draft)
        else:
            with pq.ParquetWriter(draft, schema(named=names is not None)) as writer:
                yield _Parquet(writer, names)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def predict_to(
    predictor: Predictor,
    given: Iterable[Csr],
    target: Sink,
    *,
    top: int,
    threshold: float | None = None,
) -> int:
    """Predicts every block into ``target``; returns the number of documents.

    Args:
        threshold: the least score of a label that is given; None gives all ``top``.
    """
    count = 0
    for block in given:
        for part in predictor.predict_blocks(block, top):
            target.write(part if threshold is None else at_least(part, threshold))
            count += len(part.labels)
    return count


class _Lines:
    """One JSON object a document: document, labels, scores and names if there are any."""

    def __init__(self, file: object, names: list[str] | None) -> None:
        self._file, self._names, self._count = file, names, 0

    def write(self, block: Predictions) -> None:
        for labels, scores in zip(block.labels, block.scores, strict=True):
            kept = labels >= 0
            line: dict[str, object] = {
                "document": self._count,
                "labels": labels[kept].tolist(),
                "scores": [round(float(score), 6) for score in scores[kept]],
            }
            if self._names is not None:
                line["names"] = [self._names[label] for label in labels[kept]]
            print(json.dumps(line, ensure_ascii=False), file=self._file)  # type: ignore[call-overload]
            self._count += 1


class _Arrays:
    def __init__(self) -> None:
        self._blocks: list[Predictions] = []

    def write(self, block: Predictions) -> None:
        self._blocks.append(block)

    def save(self, path: Path) -> None:
        width = self._blocks[0].labels.shape[1] if self._blocks else 0
        empty = Predictions(np.zeros((0, width), np.int32), np.zeros((0, width), np.float32))
        blocks = self._blocks or [empty]
        np.savez_compressed(
            path,
            labels=np.concatenate([block.labels for block in blocks]),
            scores=np.concatenate([block.scores for block in blocks]),
        )


class _Parquet:
    def __init__(self, writer: pq.ParquetWriter, names: list[str] | None) -> None:
        self._writer, self._count = writer, 0
        self._names = None if names is None else pa.array(names, pa.string())

    def write(self, block: Predictions) -> None:
        self._writer.write_batch(table(block, self._count, self._names))
        self._count += len(block.labels)
