"""Tiny real artefacts, made by our own code: what the fuzz targets spoil, the seeds' source."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_xml.checkpoint import folder_of, sealed
from ray_xml.config import build_config
from ray_xml.exchange import Exchange
from ray_xml.export import export
from ray_xml.label_range import LabelRange
from ray_xml.model import model_of_run
from ray_xml.partition import label_ranges
from ray_xml.ranges import LocalRanges
from ray_xml.run_config import RunConfig
from ray_xml.run_data import fitted_documents
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter
from ray_xml.text import TextSettings
from ray_xml.text_fit import fit
from ray_xml.training import Training

DOCUMENTS, FEATURES, LABELS, DIM = 24, 14, 6, 4
XC = (
    b"4 14 6\n0,2 1:0.5 3:1e-3\n1 0:1 2:-2.5 13:3\n 4:7\n3,5 6:.25 7:1.\n",
    b"3 14\n1:0.5 3:1\n\n0:1 13:2\n",
    b"3 6\n1:1 3:1\n0:1\n5:1\n",
)


@dataclass(frozen=True)
class Artefacts:
    """Where they lie.

    Attributes:
        data: a data-set folder with names, texts and a vectoriser.
        run: a finished run of two epochs.
        exported: its exported model.
    """

    data: Path
    run: Path
    exported: Path


def make_artefacts(folder: Path) -> Artefacts:
    """The artefacts in ``folder``, made only if they are not there."""
    made = Artefacts(folder / "data", folder / "run", folder / "exported")
    if not made.exported.exists():
        _make_data(made.data)
        _train(made.data, made.run)
        export(model_of_run(made.run), made.data, made.exported, "int8")
    return made


def small_config(data: Path, run: Path) -> RunConfig:
    """The config of the run."""
    tree = {
        "data": str(data),
        "run": str(run),
        "encoder": {"dim": DIM, "tokens": "random"},
        "shortlist": {"size": 3, "source": "both"},
        "neighbors": {"size": 4, "terms": 4, "labels": 4, "label_terms": 4},
        "classifier": {"random_negatives": 3},
        "training": {"epochs": 2, "batch_size": 8, "cycle_epochs": 1, "validation": 0.1},
        "resources": {"workers": 1, "label_shards": 1},
    }
    return build_config(RunConfig, tree, origin="small")


def training(config: RunConfig, data: DataSet, run: Path) -> Training:
    """The run in this process, begun or gone on with."""
    labels = fitted_documents(data, config).labels
    (cut,) = label_ranges(labels.column_counts(), 1)
    ranges = LocalRanges([LabelRange(cut, labels, config.resolved(data).shortlist)])
    return Training(config, data, run, ranges, Exchange())


def put_right(part: Path) -> None:
    """Makes the manifest beside a checkpoint's part fit to it, as whoever spoils one would."""
    manifest = part.with_name("manifest.json")
    tree, content = json.loads(manifest.read_bytes()), part.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    tree["parts"][part.name] = {"bytes": len(content), "sha256": sha256}
    manifest.write_text(json.dumps(sealed(tree)), encoding="utf-8")


def _make_data(path: Path) -> None:
    rng = np.random.default_rng(5)
    ids = [np.sort(rng.choice(FEATURES, 5, replace=False)) for _ in range(DOCUMENTS)]
    values = [rng.random(5) + 0.1 for _ in ids]
    labels = [sorted({int(row[0]) % LABELS, int(row[2]) % LABELS}) for row in ids]
    features = Csr.from_lists([row.tolist() for row in ids], FEATURES, [v.tolist() for v in values])
    truth = Csr.from_lists(labels, LABELS)
    with DataSetWriter(path, name="tiny", num_features=FEATURES, num_labels=LABELS) as writer:
        for name, rows in (("train", slice(0, 18)), ("test", slice(18, DOCUMENTS))):
            with writer.split(name, leave_out_empty=name == "train") as split:
                split.append(
                    features.slice(rows.start, rows.stop), truth.slice(rows.start, rows.stop)
                )
        writer.write_label_names([f"label {i} ü" for i in range(LABELS)])
        texts = [f"{'word' * 3} w{i:02d} w{(i + 1) % 13:02d}" for i in range(13)]
        fit(texts, TextSettings(min_df=1)).write(writer)
        titles = (f'{{"name": "d{i}", "summary": "s"}}\n' for i in range(DOCUMENTS - 18))
        writer.write_text_file("test_documents.jsonl", "".join(titles))


def _train(data: Path, path: Path) -> None:
    config = small_config(data, path)
    run = RunFolder(path)
    run.begin(config)
    for report in training(config, DataSet.open(data), path).epochs():
        run.append(report.line)
    # The model is then that of the last epoch, whichever was the better.
    shutil.rmtree(folder_of(run.checkpoints, 1), ignore_errors=True)
