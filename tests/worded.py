"""A small run on a data set made of texts, with names for everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from trained import run_at

from ray_xml.calibrate import calibrate
from ray_xml.prepare_text import prepare_text
from ray_xml.row_files import Columns
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

TOPICS, DOCUMENTS = 12, 240


def texts(seed: int, count: int) -> list[tuple[str, list[str]]]:
    """(text, labels): words of one or two topics among those of none."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        topics = sorted(rng.choice(TOPICS, rng.integers(1, 3), replace=False).tolist())
        words = [f"topic{topic}word{rng.integers(5)}" for topic in topics for _ in range(3)]
        words += [f"common{rng.integers(30)}" for _ in range(6)]
        made.append((" ".join(rng.permutation(words)), [f"about {topic}" for topic in topics]))
    return made


def worded_run(folder: Path, without: str = "") -> RunFolder:
    """The run; its data set lies beside it in ``data``.

    Args:
        without: a label that the documents lack, whatever they are about.
    """
    rows = [
        json.dumps(
            {
                "text": text,
                "labels": [label for label in labels if label != without],
                "key": f"doc-{number}",
            }
        )
        for number, (text, labels) in enumerate(texts(0, DOCUMENTS))
    ]
    (folder / "all.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    columns = Columns(text=("text",), labels="labels", id="key")
    prepare_text([folder / "all.jsonl"], folder / "data", columns=columns, processes=1)
    data = DataSet.open(folder / "data")
    return run_at(
        data,
        folder / "run",
        parts=1,
        training={"epochs": 2, "batch_size": 32, "cycle_epochs": 1, "validation": 0.2},
        neighbors={"size": 20},
    )


def calibrated_run(folder: Path) -> RunFolder:
    """The same with probabilities."""
    run = worded_run(folder)
    calibrate(run, DataSet.open(run.config().data))
    return run
