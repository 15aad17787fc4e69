"""Documents to predict, from a data set or an XC file, and predictions to a file, streamed."""

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
from ray_xml.predictor import Predictions, Predictor
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.xc_io import open_xc

ENDINGS = (".jsonl", ".npz", ".parquet")


def documents(source: str, split: str) -> Iterator[Csr]:
    """Blocks of features of a data set's split, or of an XC file with or without labels."""
    if Path(source).is_dir():
        for _, block in DataSet.open(source).split(split).features.blocks(65536):
            yield block
    else:
        for features, _ in open_xc(source).blocks():
            yield features


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
        raise ConfigError(f"--out {out}: the ending must be one of {', '.join(ENDINGS)}")
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
            with pq.ParquetWriter(draft, _schema(names)) as writer:
                yield _Parquet(writer, names)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def predict_to(predictor: Predictor, blocks: Iterable[Csr], target: Sink, *, top: int) -> int:
    """Predicts every block into ``target``; returns the number of documents."""
    count = 0
    for block in blocks:
        for part in predictor.predict_blocks(block, top):
            target.write(part)
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


def _schema(names: list[str] | None) -> pa.Schema:
    fields = [
        ("document", pa.int64()),
        ("labels", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),
    ]
    return pa.schema(fields if names is None else [*fields, ("names", pa.list_(pa.string()))])


class _Parquet:
    def __init__(self, writer: pq.ParquetWriter, names: list[str] | None) -> None:
        self._writer, self._names, self._count = writer, names, 0

    def write(self, block: Predictions) -> None:
        kept = block.labels >= 0
        offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
        labels = block.labels[kept]
        columns = [
            pa.array(np.arange(self._count, self._count + len(kept))),
            pa.ListArray.from_arrays(offsets, pa.array(labels)),
            pa.ListArray.from_arrays(offsets, pa.array(block.scores[kept])),
        ]
        if self._names is not None:
            named = pa.array([self._names[label] for label in labels], pa.string())
            columns.append(pa.ListArray.from_arrays(offsets, named))
        self._writer.write_batch(pa.record_batch(columns, schema=self._writer.schema))
        self._count += len(kept)
