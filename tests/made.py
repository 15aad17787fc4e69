"""Made inputs for the tests: a small learnable data set, random sparse rows, a training run."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_xml.checkpoint import load_range
from ray_xml.config import build_config
from ray_xml.exchange import Exchange
from ray_xml.label_range import LabelRange
from ray_xml.matrix_file import MatrixFile
from ray_xml.partition import label_ranges
from ray_xml.range_state import RangeState, save_affine
from ray_xml.ranges import LocalRanges, Ranges
from ray_xml.run_config import RunConfig
from ray_xml.run_data import fitted_documents
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr, Rows
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter
from ray_xml.training import Training

NUM_LABELS, NUM_FEATURES = 80, 300
UNSEEN = (0, 41, 77, 78, 79)  # labels without a document


def random_csr(
    rng: np.random.Generator, rows: int, columns: int, density: float = 0.2, *, binary: bool = False
) -> Csr:
    """Random rows; some are empty, and with ``binary`` there are no values."""
    held = rng.random((rows, columns)) < density
    held[rng.random(rows) < 0.2] = False
    ids = [np.flatnonzero(row).tolist() for row in held]
    values = [rng.standard_normal(len(row)).tolist() for row in ids]
    return Csr.from_lists(ids, columns, None if binary else values)


def whole(rows: Rows) -> Csr:
    """All rows, in memory."""
    return rows.slice(0, rows.num_rows)


def dense(rows: Rows) -> np.ndarray:
    """float32 [rows, columns], entry by entry."""
    return _dense(whole(rows))


def _dense(rows: Csr) -> np.ndarray:
    filled = np.zeros((rows.num_rows, rows.num_columns), np.float32)
    for row in range(rows.num_rows):
        for place in range(int(rows.offsets[row]), int(rows.offsets[row + 1])):
            filled[row, rows.ids[place]] = 1.0 if rows.values is None else rows.values[place]
    return filled


def make_data_set(path: Path, *, seed: int = 0, train: int = 600, test: int = 150) -> DataSet:
    """A data set in which a document's tokens tell its labels.

    Each label has 8 tokens of its own choice and shares 10 with the three other labels of its
    topic. A document has 1 to 3 labels, the low ones more often, and a few tokens of each label,
    of its topic and of none.
    """
    rng = np.random.default_rng(seed)
    own = [rng.choice(NUM_FEATURES, 8, replace=False) for _ in range(NUM_LABELS)]
    topic = [rng.choice(NUM_FEATURES, 10, replace=False) for _ in range(NUM_LABELS // 4)]
    share = 1.0 / (10.0 + np.arange(NUM_LABELS))
    share[list(UNSEEN)] = 0.0
    share /= share.sum()

    def documents(count: int) -> tuple[Csr, Csr]:
        token_rows, value_rows, label_rows = [], [], []
        for _ in range(count):
            labels = np.sort(rng.choice(NUM_LABELS, rng.integers(1, 4), replace=False, p=share))
            drawn = [rng.choice(NUM_FEATURES, 3)]
            for label in labels:
                drawn += [rng.choice(own[label], 5), rng.choice(topic[label // 4], 2)]
            tokens, times = np.unique(np.concatenate(drawn), return_counts=True)
            values = times / np.linalg.norm(times)
            token_rows.append(tokens.tolist())
            value_rows.append(values.tolist())
            label_rows.append(labels.tolist())
        return (
            Csr.from_lists(token_rows, NUM_FEATURES, value_rows),
            Csr.from_lists(label_rows, NUM_LABELS),
        )

    with DataSetWriter(
        path, name="made", num_features=NUM_FEATURES, num_labels=NUM_LABELS
    ) as writer:
        for name, count in (("train", train), ("test", test)):
            with writer.split(name, leave_out_empty=name == "train") as split:
                split.append(*documents(count))
    return DataSet.open(path)


def write_xc(path: Path, features: Csr, labels: Csr) -> None:
    """An XC file with labels, every number as it is."""
    assert features.values is not None
    lines = [f"{features.num_rows} {features.num_columns} {labels.num_columns}"]
    for row in range(features.num_rows):
        own = labels.slice(row, row + 1).packed().ids
        part = slice(int(features.offsets[row]), int(features.offsets[row + 1]))
        pairs = zip(features.ids[part], features.values[part], strict=True)
        lines.append(
            ",".join(map(str, own))
            + "".join(f" {token}:{float(value)!r}" for token, value in pairs)
        )
    path.write_text("\n".join(lines) + "\n")


def make_config(**sections: Mapping[str, Any]) -> RunConfig:
    """A config that fits the made data set, with ``sections`` on top."""
    small: dict[str, dict[str, Any]] = {
        "encoder": {"dim": 24, "dropout": 0.2, "tokens": "random"},
        "shortlist": {"size": 12},
        # Fewer than there are labels, so that shortlists have a say.
        "classifier": {"random_negatives": 20},
        # The same on every processor, and exact enough to compare one worker with several.
        "proxy": {"passes": 2},
        "training": {"epochs": 2, "batch_size": 64, "cycle_epochs": 1, "validation": 0.1},
    }
    for name, keys in sections.items():
        small[name] = {**small.get(name, {}), **keys}
    return build_config(RunConfig, small, origin="test")


def local_ranges(data: DataSet, config: RunConfig, parts: int) -> LocalRanges:
    """``parts`` label ranges over the fitted documents, in this process."""
    labels = fitted_documents(data, config).labels
    cuts = label_ranges(labels.column_counts(), parts)
    settings, fitted = config.resolved(data).shortlist, config.proxy.labels
    return LocalRanges([LabelRange(cut, labels, settings, fit_labels=fitted) for cut in cuts])


class Cycle:
    """Brings ranges of this machine from state to state, through files of its own."""

    def __init__(self, ranges: Ranges, cycle: int, embeddings: np.ndarray, block: int) -> None:
        self._ranges = ranges
        self._folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self._folder)
        file = self._filled(f"embeddings-{cycle:04d}.f16", embeddings, block)
        self.state = RangeState(cycle, file)
        self._bring(self.state)

    def set_proxies(self, affine: torch.Tensor) -> Cycle:
        """Proxies by the map, float64 [D, D + 1]."""
        path = self._folder / f"affine-{self.state.cycle:04d}.safetensors"
        save_affine(path, affine, self.state.cycle)
        return self._bring(replace(self.state, affine=path))

    def index_rows(self, weight: np.ndarray, bias: np.ndarray) -> Cycle:
        """Classifier rows [L, D] with biases [L]."""
        rows = np.concatenate([weight, bias[:, None].astype(weight.dtype)], axis=1)
        file = self._filled(f"rows-{self.state.cycle:04d}.bin", rows, 1000)
        return self._bring(replace(self.state, rows=file))

    def _filled(self, name: str, matrix: np.ndarray, block: int) -> MatrixFile:
        file = MatrixFile(self._folder / name, *matrix.shape, matrix.dtype.name)
        file.create()
        for first in range(0, len(matrix), block):
            file.write(first, matrix[first : first + block])
        file.sync()
        return file

    def _bring(self, state: RangeState) -> Cycle:
        self._ranges.bring(state)
        self._ranges.follow(state)
        self.state = state
        return self


def begin_cycle(ranges: Ranges, cycle: int, embeddings: np.ndarray, *, block: int = 1000) -> Cycle:
    """Gives ranges of this machine the embeddings of all documents, float16 [N, D]."""
    return Cycle(ranges, cycle, embeddings, block)


def proxies_of(ranges: Ranges, num_labels: int) -> np.ndarray:
    """[L, D]: the unit proxies that the ranges would put into a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        ranges.save_proxies(Path(folder))
        return load_range(Path(folder), "proxies", "proxies", (0, num_labels))


def make_training(data: DataSet, config: RunConfig, folder: Path, *, parts: int = 1) -> Training:
    """A run of one process over ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return Training(config, data, folder, local_ranges(data, config, parts), Exchange())


def train(data: DataSet, config: RunConfig, folder: Path, *, parts: int = 1) -> Training:
    """Trains to the last epoch, keeping reports as a worker would."""
    run = RunFolder(folder)
    run.begin(config)
    training = make_training(data, config, folder, parts=parts)
    for report in training.epochs():
        run.append(report.line)
    return training
