"""The files that the benchmark and its peer programs hand to each other.

A data set goes out as sparse matrices in ``scipy.sparse.save_npz``'s form (a plain .npz of
``data``, ``indices``, ``indptr`` and ``shape``) and, for readers of text, as one file in the
Extreme Classification Repository's format. Predictions come back as .npz arrays. Nothing is
pickled. ``peer_programs/peer_io.py`` is the other end.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from ray_xml.run_data import metric_sums
from ray_xml.run_sections import DataSetConfig
from ray_xml.sparse import Csr
from ray_xml.store import DataSet, Split

METRICS = ("P@1", "P@3", "P@5", "PSP@1", "PSP@3", "PSP@5", "R@5/tail")
_BLOCK = 4096


class ExchangeError(Exception):
    """A peer program wrote something else than predictions."""


@dataclass(frozen=True)
class Answers:
    """What a peer program found, and how long it took.

    Attributes:
        labels: integer [documents, k], best first, −1 where there is none.
        scores: float [documents, k].
        batch_seconds: [repetitions], for the whole test set.
        one_seconds: [documents asked one by one].
        load_seconds: to have the model in memory, imports apart.
    """

    labels: np.ndarray
    scores: np.ndarray
    batch_seconds: np.ndarray
    one_seconds: np.ndarray
    load_seconds: float


def write_data_set(data: DataSet, root: Path) -> Path:
    """Writes ``data`` for the peer programs, unless it is there; returns the folder.

    The folder's name has the data set's checksum, so another data set of the same name never
    meets old files.
    """
    folder = root / f"{data.meta.name.lower()}-{data.meta.checksum[:12]}"
    if folder.is_dir():
        return folder
    draft = root / f".{folder.name}.unfinished"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    train, test = data.split("train"), data.split("test")
    for name, rows in (
        ("train_X", train.features),
        ("train_Y", train.labels),
        ("test_X", test.features),
    ):
        scipy.sparse.save_npz(draft / f"{name}.npz", rows.to_scipy(), compressed=False)
    write_text(train, draft / "train.txt")
    draft.rename(folder)
    return folder


def write_text(split: Split, path: Path) -> None:
    """Writes a split as a text file of the Extreme Classification Repository."""
    features, labels = split.features, split.labels
    with open(path, "w", encoding="ascii") as file:
        file.write(f"{features.num_rows} {features.num_columns} {labels.num_columns}\n")
        for start, block in features.blocks(_BLOCK):
            own = labels.slice(start, start + block.num_rows)
            for (ids, values), (label_ids, _) in zip(_rows(block), _rows(own), strict=True):
                # Nine digits give back the same float32.
                pairs = [f"{i}:{v:.9g}" for i, v in zip(ids, values, strict=True)]
                file.write(" ".join([",".join(map(str, label_ids)), *pairs]) + "\n")


def _rows(block: Csr) -> list[tuple[list[int], list[float]]]:
    packed = block.packed()
    ids = packed.ids.tolist()
    values = [1.0] * len(ids) if packed.values is None else packed.values.tolist()
    bounds = packed.offsets.tolist()
    return [(ids[a:b], values[a:b]) for a, b in itertools.pairwise(bounds)]


def has_unit_length(data: DataSet) -> bool:
    """Whether the training documents (the first thousands of them) have Euclidean length 1."""
    rows = data.split("train").features.slice(0, min(_BLOCK, data.split("train").num_documents))
    square = rows.to_scipy().power(2).sum(1)
    return bool(np.allclose(square, 1.0, atol=0.01))  # published files round their values


def read_answers(path: Path) -> Answers:
    """Reads what a peer program wrote.

    Raises:
        ExchangeError: the file is missing or has not the arrays that it should.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            answers = Answers(
                labels=arrays["labels"],
                scores=arrays["scores"],
                batch_seconds=arrays["batch_seconds"],
                one_seconds=arrays["one_seconds"],
                load_seconds=float(arrays["load_seconds"]),
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExchangeError(f"{path}: no predictions ({error})") from error
    if answers.labels.ndim != 2 or answers.labels.shape != answers.scores.shape:
        shapes = f"{answers.labels.shape} labels, {answers.scores.shape} scores"
        raise ExchangeError(f"{path}: {shapes}; both must be [documents, k]")
    return answers


def score(data: DataSet, expected: DataSetConfig, labels: np.ndarray) -> dict[str, float]:
    """Metrics of predictions for the test split, in percent, as ``ray-xml evaluate`` has them.

    Args:
        data: the data set; propensities come from its train split.
        expected: the config's section on it, which may set the propensity model's constants.
        labels: integer [documents, k], best first, −1 where there is none.

    Raises:
        ExchangeError: these are no predictions for this test split.
    """
    truth = data.split("test").labels
    sums = metric_sums(data, expected)
    if len(labels) != truth.num_rows:
        raise ExchangeError(f"predictions for {len(labels)} documents, not {truth.num_rows}")
    try:
        for start, block in truth.blocks(_BLOCK):
            sums.update(labels[start : start + block.num_rows], block)
    except ValueError as error:
        raise ExchangeError(f"these are no predictions: {error}") from error
    return sums.result()
