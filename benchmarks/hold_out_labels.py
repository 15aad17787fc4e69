"""Labels held out of training and added afterwards, beside labels that were there from the start.

    python benchmarks/hold_out_labels.py DATA CONFIG --work FOLDER [--held 500] [--examples 0,1,5]

Draws labels with enough training documents and takes them out of the train split, whose documents
stay as long as they have another label. Trains a model without them (and one with all labels),
adds them by ``new_labels`` with some of their training documents each, and compares on the test
split: the share of the held-out labels' true pairs among the five best (R@5), how many of their
predictions among the five best are right (precision), and P@1 and P@5 of everything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ray_xml.add_labels import add_labels
from ray_xml.label_examples import LabelExamples
from ray_xml.model import Model, model_of_run
from ray_xml.predictor import Predictor
from ray_xml.refresh import true_candidates
from ray_xml.sparse import Csr
from ray_xml.store import DataSet, Split
from ray_xml.store_write import DataSetWriter
from ray_xml.text import Vectorizer

SHOWN = ("P@1", "P@5", "R@5", "precision", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("config")
    parser.add_argument("--work", type=Path, required=True, help="where data sets and runs go")
    parser.add_argument("--held", type=int, default=500, metavar="N", help="labels to hold out")
    parser.add_argument("--examples", default="1,5", help="documents of each; 0: its name")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    numbers = [int(one) for one in options.examples.split(",")]
    source = DataSet.open(options.data)
    held = choose(source, options.held, max(numbers), options.seed)
    full, without = options.work / "full", options.work / "without"
    write_sets(source, held, full, without)
    runs = {folder: train(options.config, folder) for folder in (full, without)}
    report(runs, full, without, numbers, options)


def choose(data: DataSet, count: int, least: int, seed: int) -> np.ndarray:
    """int64 [count], ascending: labels with ``least`` training documents or more."""
    documents = data.split("train").labels.column_counts()
    able = np.flatnonzero(documents >= least)
    return np.sort(np.random.default_rng(seed).choice(able, count, replace=False))


def write_sets(source: DataSet, held: np.ndarray, full: Path, without: Path) -> None:
    """The data set with its labels renumbered, those held out last, and the one without them."""
    labels = source.meta.num_labels
    kept = np.setdiff1d(np.arange(labels), held)
    order = np.concatenate([kept, held])
    number = np.empty(labels, np.int64)
    number[order] = np.arange(labels)
    names = source.label_names() or [str(label) for label in range(labels)]
    for folder, width in ((full, labels), (without, len(kept))):
        if folder.exists():
            continue
        with DataSetWriter(
            folder,
            name=source.meta.name,
            num_features=source.meta.num_features,
            num_labels=width,
        ) as writer:
            writer.write_label_names(names[label] for label in order[:width])
            for file in ("vectorizer.json", "features.txt"):
                if file in source.meta.files:
                    writer.write_lines(file, (source.path / file).open(encoding="utf-8"))
            for name in source.meta.splits:
                split = source.split(name)
                with writer.split(name, leave_out_empty=name == "train") as out:
                    out.append(split.features, renumbered(split.labels, number, width))


def renumbered(labels: Csr, number: np.ndarray, width: int) -> Csr:
    """The labels under other numbers, without those from ``width`` on."""
    turned = labels.to_scipy()
    order = np.argsort(number)
    return Csr.from_scipy(turned.tocsc()[:, order[:width]].tocsr(), binary=True)


def train(config: str, data: Path) -> Path:
    """Trains on a data set of ours, unless that is done; returns the run folder."""
    run = data.with_name(f"{data.name}-run")
    command = [sys.executable, "-m", "ray_xml.cli", "train", config, f"data={data}", f"run={run}"]
    command += [f"dataset.{name}=null" for name in ("features", "labels", "train", "test")]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return run


def report(
    runs: dict[Path, Path],
    full: Path,
    without: Path,
    numbers: list[int],
    options: argparse.Namespace,
) -> None:
    """Measures the models on the split and prints a Markdown table."""
    data, lacking = DataSet.open(full), DataSet.open(without)
    first = lacking.meta.num_labels
    split = data.split(options.split)
    start, base = (model_of_run(runs[folder]) for folder in (full, without))
    rows = {"there from the start": measure(start, split, first)}
    rows["not added"] = measure(base, split, first)
    for number in numbers:
        begun = time.perf_counter()
        if number:
            name = f"added, {number} document" + "s" * (number > 1)
            added = add_labels(base, lacking, examples(data, lacking, number, options.seed))
        else:
            name = "added, name"
            added = add_labels(base, lacking, *named(lacking, (data.label_names() or [])[first:]))
        seconds = time.perf_counter() - begun
        rows[name] = measure(added.model, split, first) | {"seconds": seconds}
        told = added.outcome
        rows[f"{name}: expected"] = {"R@5": told.recall, "precision": told.precision}
    count = data.meta.num_labels - first
    whole = f"{count:,} of {data.meta.num_labels:,} labels held out"
    print(f"{data.meta.name}: {whole}; {options.split}\n")
    print("| model | " + " | ".join(SHOWN) + " |\n|---|" + "---|" * len(SHOWN))
    for name, row in rows.items():
        cells = (f"{row[key]:.2f}" if key in row else "" for key in SHOWN)
        print(f"| {name} | " + " | ".join(cells) + " |")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def examples(data: DataSet, lacking: DataSet, number: int, seed: int) -> LabelExamples:
    """``number`` training documents of each label that ``lacking`` lacks."""
    rng = np.random.default_rng([seed, number])
    train, first = data.split("train"), lacking.meta.num_labels
    by_label = train.labels.columns(first, data.meta.num_labels).transpose()
    count = by_label.num_rows
    chosen = [
        rng.choice(by_label.slice(label, label + 1).packed().ids, number, replace=False)
        for label in range(count)
    ]
    held = [[label] for label in range(count) for _ in range(number)]
    names = data.label_names() or []
    rows = np.concatenate(chosen).astype(np.int64)
    return LabelExamples(
        names[first:],
        train.features.take(rows),
        Csr.from_lists(held, count),
        np.zeros(len(rows), bool),
    )


def named(lacking: DataSet, new: list[str]) -> tuple[LabelExamples, Csr]:
    """(labels with nothing but a name, features of the names of those that ``lacking`` has)."""
    vectorizer = Vectorizer.load(lacking.path)
    features = vectorizer.transform(new)
    labels = Csr.from_lists([[label] for label in range(len(new))], len(new))
    found = LabelExamples(new, features, labels, np.ones(len(new), bool))
    return found, vectorizer.transform(lacking.label_names() or [])


def measure(model: Model, split: Split, first: int) -> dict[str, float]:
    """P@1 and P@5 of everything, R@5 and precision of the labels from ``first`` on, in percent."""
    predictor = Predictor(model)
    documents = found = told = 0
    right = np.zeros(5)
    for start, block in split.features.blocks(1024):
        best = predictor.predict_features(block, 5).labels
        hits = true_candidates(best, split.labels.slice(start, start + len(best)).packed())
        right += hits.sum(0)
        told += int((best >= first).sum())
        found += int((hits & (best >= first)).sum())
        documents += len(best)
    pairs = int((split.labels.packed().ids >= first).sum())
    return {
        "P@1": 100 * right[0] / documents,
        "P@5": 20 * right.sum() / documents,
        "R@5": 100 * found / max(pairs, 1),
        "precision": 100 * found / max(told, 1),
        "pairs": pairs,
    }


if __name__ == "__main__":
    main()
