"""Everything that a report is made of, gathered from a run folder or an exported model.

What is not there (yet) is left out with a note, so that a report can be made of a run that goes
on, of one whose data set is elsewhere, and of a model without its run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ray_xml.data_url import open_data
from ray_xml.errors import CheckpointError, DataSetError, StorageError
from ray_xml.evaluation import baseline
from ray_xml.examples import Titles
from ray_xml.export import export_config, is_export, label_names
from ray_xml.predictor import Predictor
from ray_xml.report_tally import Tally, tally
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.run_records import read_lines
from ray_xml.run_sections import DataSetConfig
from ray_xml.run_status import Status, status_of
from ray_xml.run_url import local_run
from ray_xml.store import DataSet


@dataclass(frozen=True)
class Measured:
    """A model's predictions on a split.

    Attributes:
        data, split: what it was measured on.
        counts: int64 [L], train documents of each label.
        epoch: the model's. tally: what its predictions came to.
        plain: the baseline's metrics in percent.
        titles: of the split's documents; None where there are none.
    """

    data: DataSet
    split: str
    counts: np.ndarray
    epoch: int
    tally: Tally
    plain: dict[str, float]
    titles: Titles | None

    @property
    def documents(self) -> int:
        return self.data.split(self.split).num_documents


@dataclass(frozen=True)
class Gathered:
    """What is known of a run.

    Attributes:
        source: as it was given. config: the run's.
        size: bytes of the model that is used: of its checkpoint, or of the exported folder.
        status: how the run stands; None of an exported model.
        lines: metrics.jsonl. losses: float32 [steps], of every step.
        predictor: the model; None where there is none yet, or no data set.
        measured: likewise.
        names: of labels; None where there are none.
        notes: what was left out, and why.
    """

    source: str
    config: RunConfig
    size: int
    status: Status | None
    lines: list[dict[str, Any]]
    losses: np.ndarray
    predictor: Predictor | None
    measured: Measured | None
    names: list[str] | None
    notes: list[str] = field(default_factory=list)

    def label(self, number: int) -> str:
        """A label's name, or its number where labels have no names."""
        return self.names[number] if self.names is not None else f"label {number}"


def gather(
    source: str,
    split: str,
    data: str | None = None,
    *,
    expected: DataSetConfig | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Gathered:
    """Reads a run or an exported model, and measures it on a split.

    Args:
        source: a run folder, an exported model, or the URL of one.
        data: a data-set folder or URL; None is the run's.
        expected: whose propensities count; None is the run's.

    Raises:
        CheckpointError: there is neither a run nor a model at ``source``.
        DataSetError: the data set that was asked for is not there, does not fit the model, has no
            such split, or its split has no labels.
    """
    path = local_run(source)
    notes: list[str] = []
    if is_export(path):
        config, status = export_config(path), None
        notes.append("an exported model: what its training was like is not in it")
    else:
        config, status = RunFolder(path).config(), status_of(path)
    lines = [] if status is None else read_lines(path)
    opened = _open(data, config, notes)
    predictor = _predictor(path, notes) if opened is not None else None
    measured = None
    if opened is not None and predictor is not None:
        documents = expected or config.dataset
        found = tally(predictor, opened, split, documents, progress=progress)
        measured = Measured(
            opened,
            split,
            opened.split("train").labels.column_counts(),
            predictor.model.epoch,
            found,
            baseline(opened, split, documents),
            Titles.of(opened, split),
        )
        pairs = opened.split(split).filtered
        if pairs is not None:
            notes.append(
                f"{pairs.nnz:,} pairs that the data set names count neither as predictions nor as "
                "true ones"
            )
    names = label_names(path)
    if names is None and opened is not None:
        names = opened.label_names()
    if measured is not None and names is None:
        notes.append("labels have no names in this data set: they are shown by their numbers")
    losses = np.zeros(0, np.float32) if status is None else _losses(path, notes)
    epoch = None if predictor is None else predictor.model.epoch
    size = _size(path, status, epoch)
    return Gathered(source, config, size, status, lines, losses, predictor, measured, names, notes)


def _open(data: str | None, config: RunConfig, notes: list[str]) -> DataSet | None:
    if data is not None:
        return open_data(data)
    try:
        return open_data(config.data)
    except (DataSetError, StorageError) as error:
        notes.append(f"nothing was measured, since the run's data set is not to be had: {error}")
        return None


def _predictor(path: Path, notes: list[str]) -> Predictor | None:
    try:
        return Predictor.load(path)
    except CheckpointError as error:
        if is_export(path):
            raise
        notes.append(f"nothing was measured: {error}")
        return None


def _losses(path: Path, notes: list[str]) -> np.ndarray:
    try:
        return RunFolder(path).step_losses()
    except CheckpointError as error:
        notes.append(f"losses of the steps are left out: {error}")
        return np.zeros(0, np.float32)


def _size(path: Path, status: Status | None, epoch: int | None) -> int:
    if status is None:
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return next((one.bytes for one in status.checkpoints if one.epoch == epoch), 0)
