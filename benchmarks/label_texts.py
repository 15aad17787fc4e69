"""What labels' own texts are worth: a data set that has them, trained with and without.

    python benchmarks/label_texts.py DATA CONFIG --work FOLDER [--own] [--split SPLIT]

Prints a Markdown table of the validation documents, or a split: P, PSP, and of the labels without a
training document the share of their true pairs among the five best (R@5, labels without documents).

Where documents are labels themselves, as in WordNet, ``--own`` takes a validation document's own
label from its predictions: the label whose name is its text. Mostly two documents there name each
other, so a second table leaves out the pairs whose label's own document trained and has the
document's label: what is left cannot be known from that document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_xml.predictor import Predictor
from ray_xml.refresh import true_candidates
from ray_xml.run_data import metric_sums, split_rows
from ray_xml.scoring import top_k
from ray_xml.sparse import Csr
from ray_xml.store import DataSet

SHOWN = ("P@1", "P@5", "PSP@1", "PSP@5", "R@5")
_ASKED, _LENGTH = 60, 200  # predictions of which some are left out; characters kept of a text


@dataclass(frozen=True)
class Documents:
    """What is measured.

    Attributes:
        features, labels: [n, V] and [n, L].
        left_out: for each document, labels that are neither predictions nor true.
    """

    features: Csr
    labels: Csr
    left_out: list[set[int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("config")
    parser.add_argument("--work", type=Path, required=True, help="where runs go")
    parser.add_argument("--split", help="other than the validation documents")
    parser.add_argument("--own", action="store_true", help="documents are labels themselves")
    options = parser.parse_args()
    data = DataSet.open(options.data)
    runs = {
        name: train(options.config, data.path, options.work / name, on)
        for name, on in (("without", "false"), ("with", "true"))
    }
    predictors = {name: Predictor.load(run) for name, run in runs.items()}
    tables = documents_of(data, predictors["with"], options.split, own=options.own)
    for title, documents in tables.items():
        print(f"\n{data.meta.name}, {title}: {documents.features.num_rows:,} documents\n")
        print("| label texts | " + " | ".join(SHOWN) + " | R@5, labels without documents |")
        print("|---|" + "---|" * (len(SHOWN) + 1))
        for name, predictor in predictors.items():
            row = measure(data, predictor, documents)
            print(f"| {name} | " + " | ".join(f"{row[key]:.2f}" for key in row) + " |")


def train(config: str, data: Path, run: Path, on: str) -> Path:
    """Trains, unless that is done; returns the run folder."""
    command = [sys.executable, "-m", "ray_xml.cli", "train", config, f"data={data}", f"run={run}"]
    command += [f"dataset.{name}=null" for name in ("features", "labels", "train", "test")]
    command.append(f"training.label_texts={on}")
    subprocess.run(command, check=True, stdout=sys.stderr)
    return run


def documents_of(
    data: DataSet, predictor: Predictor, split: str | None, *, own: bool
) -> dict[str, Documents]:
    """{title: documents}."""
    if split is not None:
        given = data.split(split)
        nothing: list[set[int]] = [set() for _ in range(given.num_documents)]
        return {split: Documents(given.features, given.labels, nothing)}
    train = data.split("train")
    fitted, held = split_rows(data, predictor.config)
    features, labels = train.features.take(held), train.labels.take(held)
    if not own:
        return {"validation": Documents(features, labels, [set() for _ in held])}
    label_of = own_labels(data)
    selves = [{label} - {-1} for label in label_of[held].tolist()]
    naming = train.labels.take(fitted).transpose()  # [L, fitted]: the documents of each label
    mutual = [
        set(label_of[fitted[naming.slice(label, label + 1).packed().ids]].tolist()) - {-1}
        if label >= 0
        else set()
        for label in label_of[held].tolist()
    ]
    return {
        "validation, without a document's own label": without(features, labels, selves),
        "likewise, without mutual pairs": without(
            features, labels, [one | other for one, other in zip(selves, mutual, strict=True)]
        ),
    }


def own_labels(data: DataSet) -> np.ndarray:
    """int64 [documents of train]: the label whose name is the document's text, −1 for none."""
    names = data.label_names() or []
    shown = [" ".join(name[: 2 * _LENGTH].split())[:_LENGTH] for name in names]
    number = {name: label for label, name in enumerate(shown)}
    lines = (data.path / "train_documents.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return np.array([number.get(json.loads(line)["summary"], -1) for line in lines])


def without(features: Csr, labels: Csr, left_out: list[set[int]]) -> Documents:
    """The documents that have labels other than those left out, and these alone."""
    rows = labels.packed()
    kept = [
        [label for label in rows.ids[low:high].tolist() if label not in gone]
        for low, high, gone in zip(rows.offsets[:-1], rows.offsets[1:], left_out, strict=True)
    ]
    some = np.array([at for at, own in enumerate(kept) if own], np.int64)
    return Documents(
        features.take(some),
        Csr.from_lists([kept[at] for at in some], labels.num_columns),
        [left_out[at] for at in some],
    )


def measure(data: DataSet, predictor: Predictor, documents: Documents) -> dict[str, float]:
    """The metrics, in percent."""
    counts = data.split("train").labels.take(split_rows(data, predictor.config)[0]).column_counts()
    sums = metric_sums(data, predictor.config.dataset)
    found = pairs = 0
    for first, block in documents.features.blocks(1024):
        best = predictor.predict_features(block, _ASKED)
        gone = documents.left_out[first : first + block.num_rows]
        hidden = np.array(
            [[label in own for label in row] for row, own in zip(best.labels, gone, strict=True)]
        )
        five = top_k(np.where(hidden, np.int32(-1), best.labels), best.scores, 5)[0]
        truth = documents.labels.slice(first, first + block.num_rows).packed()
        sums.update(five, truth)
        right = true_candidates(five, truth)
        found += int((right & (counts[np.maximum(five, 0)] == 0)).sum())
        pairs += int((counts[truth.ids] == 0).sum())
    results = sums.result()
    return {key: results[key] for key in SHOWN} | {"unseen": 100 * found / max(pairs, 1)}


if __name__ == "__main__":
    main()
