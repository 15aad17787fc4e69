"""Some documents of a split with their true and predicted labels, in words where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ray_xml.data_url import open_data
from ray_xml.errors import DataSetError
from ray_xml.json_text import parse_json
from ray_xml.predictor import Predictor
from ray_xml.run_url import local_run

_TOP = 5


def examples(run: str, split: str, count: int, *, seed: int) -> Iterator[str]:
    """``count`` documents drawn at random, each as a few lines of text.

    A data set may carry ``<split>_documents.jsonl`` with a ``name`` and ``summary`` a document.
    """
    predictor = Predictor.load(local_run(run))
    data = open_data(predictor.config.data)
    documents = data.split(split)
    names = data.label_names()
    lines = _lines(data.path / f"{split}_documents.jsonl", documents.num_documents)
    count = min(count, documents.num_documents)
    rows = np.random.default_rng(seed).choice(documents.num_documents, count, replace=False)
    chosen = predictor.predict(documents.features.take(rows), _TOP)
    truth = documents.labels.take(rows)

    def word(label: int) -> str:
        return names[label] if names is not None else f"label {label}"

    for place, row in enumerate(rows):
        text = [f"document {row}"]
        if lines is not None:
            text = _title(lines[row], f"{data.path}/{split}_documents.jsonl: line {row + 1}")
        true = set(truth.slice(place, place + 1).packed().ids.tolist())
        for label, score in zip(chosen.labels[place], chosen.scores[place], strict=True):
            if label >= 0:
                text.append(f"    {'✓' if label in true else ' '} {score:.2f}  {word(int(label))}")
        missed = true - set(chosen.labels[place].tolist())
        if missed:
            text.append("    missed: " + ", ".join(word(label) for label in sorted(missed)))
        yield "\n".join(text)


def _lines(titles: Path, documents: int) -> list[str] | None:
    """A line a document, or None where there is no such file."""
    if not titles.is_file():
        return None
    try:
        lines = titles.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataSetError(f"{titles} cannot be read ({error}): prepare the data again") from error
    if len(lines) != documents:
        raise DataSetError(
            f"{titles} has {len(lines):,} lines for {documents:,} documents: prepare the data again"
        )
    return lines


def _title(line: str, place: str) -> list[str]:
    try:
        title = parse_json(line)
        name, summary = title["name"], title["summary"]
        if not (isinstance(name, str) and isinstance(summary, str)):
            raise TypeError("no texts")
        return [name, f"    “{summary}”"]
    except (KeyError, TypeError, ValueError) as error:
        what = "no JSON object with a name and a summary: prepare the data again"
        raise DataSetError(f"{place}: {what}") from error
