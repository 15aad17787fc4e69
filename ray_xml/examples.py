"""Some documents of a split with their true and predicted labels, in words where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ray_xml.data_url import open_data
from ray_xml.errors import DataSetError
from ray_xml.json_text import parse_json
from ray_xml.predictor import Predictions, Predictor
from ray_xml.run_url import local_run
from ray_xml.store import DataSet
from ray_xml.truth import Truth

_TOP = 5


def examples(run: str, split: str, count: int, *, seed: int) -> Iterator[str]:
    """``count`` documents drawn at random, each as a few lines of text.

    Their names and summaries are shown where the data set has them, see ``Titles``.
    """
    predictor = Predictor.load(local_run(run))
    data = open_data(predictor.config.data)
    documents = data.split(split)
    names = data.label_names()
    titles = Titles.of(data, split)
    count = min(count, documents.num_documents)
    rows = np.random.default_rng(seed).choice(documents.num_documents, count, replace=False)
    whole = Truth.of(documents)
    own = whole.take(rows)
    found = predictor.predict(documents.features.take(rows), whole.asked(_TOP))
    chosen, truth = Predictions(*own.best(*found, _TOP)), own.labels

    def word(label: int) -> str:
        return names[label] if names is not None else f"label {label}"

    for place, row in enumerate(rows):
        text = [f"document {row}"]
        if titles is not None:
            name, summary = titles.at(int(row))
            text = [name, f"    “{summary}”"]
        true = set(truth.slice(place, place + 1).packed().ids.tolist())
        for label, score in zip(chosen.labels[place], chosen.scores[place], strict=True):
            if label >= 0:
                text.append(f"    {'✓' if label in true else ' '} {score:.2f}  {word(int(label))}")
        missed = true - set(chosen.labels[place].tolist())
        if missed:
            text.append("    missed: " + ", ".join(word(label) for label in sorted(missed)))
        yield "\n".join(text)


class Titles:
    """What a data set says of a split's documents in words: ``<split>_documents.jsonl``, with a
    ``name`` and a ``summary`` a document."""

    def __init__(self, file: Path, lines: list[str]) -> None:
        self._file, self._lines = file, lines

    @staticmethod
    def of(data: DataSet, split: str) -> Titles | None:
        """Those of a split, or None where there is no such file.

        Raises:
            DataSetError: the file is damaged.
        """
        titles, documents = data.path / f"{split}_documents.jsonl", data.split(split).num_documents
        if not titles.is_file():
            return None
        try:
            lines = titles.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataSetError(
                f"{titles} cannot be read ({error}): prepare the data again"
            ) from error
        if len(lines) != documents:
            raise DataSetError(
                f"{titles} has {len(lines):,} lines for {documents:,} documents: "
                "prepare the data again"
            )
        return Titles(titles, lines)

    def at(self, row: int) -> tuple[str, str]:
        """(name, summary) of a document.

        Raises:
            DataSetError: its line is damaged.
        """
        try:
            title = parse_json(self._lines[row])
            name, summary = title["name"], title["summary"]
            if not (isinstance(name, str) and isinstance(summary, str)):
                raise TypeError("no texts")
            return name, summary
        except (KeyError, TypeError, ValueError) as error:
            what = "no JSON object with a name and a summary: prepare the data again"
            raise DataSetError(f"{self._file}: line {row + 1}: {what}") from error
