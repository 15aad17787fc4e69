"""From files of texts and tags to a prepared data-set folder.

The files are read twice: once to meet the labels and to count terms and frequencies, and once to
write the rows. Processes share the work block by block, and take nothing of the size of the files:
memory is that of the labels, the vocabulary and a few blocks, and some bytes a document.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ray_xml.data_summary import SUMMARY, SplitCounts, summarise
from ray_xml.errors import ConfigError, InputError
from ray_xml.in_order import available_cpus, in_order
from ray_xml.label_book import Labels, NamedLabels
from ray_xml.label_texts import LabelTexts
from ray_xml.row_files import Block, Columns, check_files, read_rows
from ray_xml.row_values import content_hashes, rows_of
from ray_xml.sparse import Csr
from ray_xml.store_meta import DataSetMeta
from ray_xml.store_write import DataSetWriter, SplitWriter
from ray_xml.text import TextSettings, Vectorizer
from ray_xml.text_fit import Terms, TextFit, count_terms
from ray_xml.text_split import Draw

Progress = Callable[[str, int, int | None], None]
_SMALL = 4 << 20  # bytes of files that one process reads before others would have started
_SUMMARY_LENGTH = 200  # characters of a text that are kept to show what a document is


@dataclass(frozen=True)
class Prepared:
    """What ``prepare_text`` wrote.

    Attributes:
        meta: of the data set.
        summary: what ``summary.json`` holds.
        seconds: the time it took.
        documents: read.
    """

    meta: DataSetMeta
    summary: dict[str, Any]
    seconds: float
    documents: int


@dataclass(frozen=True)
class _Job:
    """How a process reads blocks.

    Attributes:
        draw: which documents of train go to test; draws none where test has its own files.
    """

    columns: Columns
    allow_empty: bool
    draw: Draw


@dataclass(frozen=True)
class _Seen:
    """What the first reading finds in a block."""

    split: str
    labels: list[list[str]]
    hashes: np.ndarray
    fitted: int
    terms: Terms
    empty_labels: int
    cleaned_labels: int


@dataclass(frozen=True)
class _Survey(_Job):
    """The first reading."""

    settings: TextSettings

    def __call__(self, item: tuple[str, Block]) -> _Seen:
        split, block = item
        rows = rows_of(block, self.columns, allow_empty=self.allow_empty)
        hashes = content_hashes(rows.texts)
        texts: list[str] = []
        if split == "train":
            drawn = self.draw.drawn(hashes)
            given = zip(rows.texts, rows.labels, drawn, strict=True)
            texts = [text for text, labels, out in given if labels and not out]
        counts = count_terms(texts, self.settings)
        return _Seen(
            split,
            rows.labels,
            hashes,
            len(texts),
            counts,
            rows.empty_labels,
            rows.cleaned_labels,
        )


@dataclass(frozen=True)
class _Part:
    """Documents of one split as the second reading finds them; ``lines`` tell of each in JSON."""

    split: str
    features: Csr
    labels: list[list[str]]
    hashes: np.ndarray
    lines: list[str] | None


@dataclass(frozen=True)
class _Read(_Job):
    """The second reading."""

    vectorizer: Vectorizer

    def __call__(self, item: tuple[str, Block]) -> list[_Part]:
        split, block = item
        rows = rows_of(block, self.columns, allow_empty=self.allow_empty)
        hashes = content_hashes(rows.texts)
        features = self.vectorizer.transform(rows.texts)
        file = Path(block.path).name
        names = rows.ids or [f"{file}:{number}" for number in rows.numbers]
        in_test = self.draw.in_test(hashes) if split == "train" else np.zeros(len(hashes), bool)
        parts = []
        for name, chosen in ((split, ~in_test), ("test", in_test)):
            places = np.flatnonzero(chosen)
            if not len(places):
                continue
            lines = None
            if name == "test" or self.columns.id is not None:
                lines = [_line(names[place], rows.texts[place]) for place in places]
            labels = [rows.labels[place] for place in places]
            parts.append(_Part(name, features.take(places), labels, hashes[places], lines))
        return parts


def _line(name: str, text: str) -> str:
    summary = " ".join(text[: 2 * _SUMMARY_LENGTH].split())[:_SUMMARY_LENGTH]
    return json.dumps({"name": name, "summary": summary}) + "\n"


def prepare_text(
    train: Sequence[str | Path],
    out: str | Path,
    *,
    columns: Columns,
    test: Sequence[str | Path] | float = 0.1,
    dev: Sequence[str | Path] = (),
    settings: TextSettings | None = None,
    labels: Labels | None = None,
    label_texts: LabelTexts | None = None,
    name: str | None = None,
    seed: int = 0,
    allow_empty: bool = False,
    overwrite: bool = False,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Reads files that ``row_files`` knows and writes a data-set folder.

    Train documents without features or labels are left out; those of other splits stay. Beside the
    splits stand the vectoriser's files, the label names, ``summary.json`` and a
    ``<split>_documents.jsonl`` with a name and the beginning of the text of each row, of test and,
    where documents have names, of every split. With more than one process, a script that calls
    this needs the usual ``if __name__ == "__main__":`` guard; their number changes nothing in the
    data set.

    Args:
        train: the files, of one or of several kinds.
        out: the folder to make.
        columns: what is what; its labels are needed.
        test: the files of the test split, or the share of the texts of ``train`` to draw for it.
        dev: the files of a third split, which training does not touch.
        settings: of the vectoriser, which is fitted to the labelled documents of train.
        labels: by default those that the documents name.
        label_texts: texts of the labels themselves, by default none.
        name: the data set's name; by default that of the folder.
        seed: another one draws another test split.
        allow_empty: let documents be without text.
        overwrite: replace a data set that is at ``out``, once the new one is complete.
        processes: how many read; None takes one a CPU, or this one alone for small files.
        progress: called with what is done, documents done and in all (None: not known yet).

    Raises:
        InputError: A file is faulty, or there is nothing to train on.
        ConfigError: A setting is out of range, or the texts leave no features.
        DataSetError: ``out`` may not be written.
    """
    begun = time.perf_counter()
    assert columns.labels is not None, "documents need labels"
    settings, labels = settings or TextSettings(), labels or NamedLabels()
    files = {"train": [str(path) for path in train], "dev": [str(path) for path in dev]}
    share = 0.0
    if isinstance(test, (int, float)):
        share = float(test)
        if not 0 < share < 1:
            raise ConfigError(f"test is {test}: the share to draw must lie between 0 and 1")
    else:
        files["test"] = [str(path) for path in test]
    files = {split: paths for split, paths in files.items() if paths}
    for paths in files.values():
        check_files(paths, columns)
    label_texts = label_texts or LabelTexts()
    label_texts.check()
    label_texts.meet(labels)
    processes = processes or _processes(files)

    def open_writer(num_features: int, num_labels: int) -> DataSetWriter:
        return DataSetWriter(
            out,
            name=name or Path(out).absolute().name,
            num_features=num_features,
            num_labels=num_labels,
            overwrite=overwrite,
        )

    # Opened for nothing but its check of ``out``, which should not fail after a long reading.
    open_writer(1, 1)
    job = _Job(columns, allow_empty, Draw(share, seed))
    found = _survey(files, job, settings, labels, processes, progress)
    vectorizer, notes, documents = found
    names = labels.names
    if not names:
        raise InputError(files["train"][0], f"no document has a label in {columns.labels!r}")
    with open_writer(vectorizer.num_features, len(names)) as writer:
        writer.write_label_names(names)
        vectorizer.write(writer)
        task = _Read(columns, allow_empty, job.draw, vectorizer)
        splits = ["train", *(["dev"] if dev else []), "test"]
        results = in_order(task, _blocks(files, columns), processes=processes)
        counts = _write(writer, splits, results, labels, documents, progress)
        written = {split: part.meta for split, part in writer.splits.items() if part.meta}
        for split in ("train", "test"):
            if not written[split].documents:
                raise InputError(files.get(split, files["train"])[0], _NOTHING[split])
        summary = summarise(counts, written, num_features=vectorizer.num_features, notes=notes)
        if label_texts:
            summary["label_texts"] = label_texts.write(
                writer, vectorizer, labels, counts["train"].labels
            )
        writer.write_text_file(SUMMARY, json.dumps(summary, indent=2) + "\n")
    assert writer.meta is not None
    return Prepared(writer.meta, summary, time.perf_counter() - begun, documents)


_NOTHING = {
    "train": "no document has both features and labels, so there is nothing to train on",
    "test": "no document is left for test: draw a larger share, or give files for it",
}


def _processes(files: dict[str, list[str]]) -> int:
    paths = [Path(path) for some in files.values() for path in some]
    small = sum(path.stat().st_size for path in paths if path.is_file()) <= _SMALL
    return 1 if small and all(path.is_file() for path in paths) else available_cpus()


def _blocks(files: dict[str, list[str]], columns: Columns) -> Iterator[tuple[str, Block]]:
    for split, paths in files.items():
        for block in read_rows(paths, columns):
            yield split, block


def _survey(
    files: dict[str, list[str]],
    job: _Job,
    settings: TextSettings,
    labels: Labels,
    processes: int,
    progress: Progress | None,
) -> tuple[Vectorizer, dict[str, int], int]:
    """The first reading: (vectoriser, what to tell, documents); ``labels`` and ``job.draw`` are
    settled by it."""
    notes = {"empty_labels": 0, "cleaned_labels": 0}
    documents = 0
    task = _Survey(job.columns, job.allow_empty, job.draw, settings)
    with TextFit(settings) as fit:
        for seen in in_order(task, _blocks(files, job.columns), processes=processes):
            fit.add(seen.fitted, seen.terms)
            met = labels.meet(seen.labels)
            if seen.split == "train":
                job.draw.see(seen.hashes, met)
            documents += len(seen.hashes)
            notes["empty_labels"] += seen.empty_labels
            notes["cleaned_labels"] += seen.cleaned_labels
            if progress is not None:
                progress("words and labels", documents, None)
        job.draw.keep_labels()
        labels.settle()
        notes["moved_to_train"] = job.draw.moved
        return fit.vectorizer(), notes, documents


def _write(
    writer: DataSetWriter,
    splits: list[str],
    results: Iterable[list[_Part]],
    labels: Labels,
    documents: int,
    progress: Progress | None,
) -> dict[str, SplitCounts]:
    """The second reading: writes the splits and what is told of their documents."""
    counts = {split: SplitCounts(len(labels.names)) for split in splits}
    told: dict[str, IO[str]] = {}
    done = 0
    with ExitStack() as stack:
        with ExitStack() as parts:
            open_parts: dict[str, SplitWriter] = {
                split: parts.enter_context(writer.split(split, leave_out_empty=split == "train"))
                for split in splits
            }
            for part in (part for parts_of_block in results for part in parts_of_block):
                rows = labels.meet(part.labels)
                open_parts[part.split].append(part.features, rows)
                counts[part.split].add(rows, part.hashes)
                if part.lines is not None:
                    if part.split not in told:
                        told[part.split] = stack.enter_context(
                            tempfile.TemporaryFile("w+", encoding="utf-8")
                        )
                    kept = np.ones(len(part.lines), bool)
                    if part.split == "train":
                        kept = (part.features.counts > 0) & (rows.counts > 0)
                    told[part.split].writelines(part.lines[row] for row in np.flatnonzero(kept))
                done += len(part.hashes)
                if progress is not None:
                    progress("rows", done, documents)
        for split, file in told.items():
            file.seek(0)
            writer.write_lines(f"{split}_documents.jsonl", file)
    return counts
