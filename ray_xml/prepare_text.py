"""From files of texts and tags to a prepared data-set folder.

The files are read twice: once to meet the labels and to count terms and frequencies, and once to
write the rows. Processes share the work block by block, and take nothing of the size of the files:
memory is that of the labels, the vocabulary and a few blocks, and some bytes a document.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from pydantic import ValidationError

from ray_xml.data_summary import SUMMARY, SplitCounts, summarise
from ray_xml.embedding import Embedding, EmbeddingFile, check_one_source
from ray_xml.errors import ConfigError, InputError
from ray_xml.filter_file import FilterPairs, check_splits
from ray_xml.in_order import available_cpus, in_order
from ray_xml.label_book import Labels, NamedLabels
from ray_xml.label_texts import LabelTexts
from ray_xml.row_files import Block, Columns, check_files, read_rows
from ray_xml.store_meta import DataSetMeta
from ray_xml.store_write import DataSetWriter, SplitWriter
from ray_xml.text import TextSettings, Vectorizer
from ray_xml.text_blocks import Job, Part, Read, Survey
from ray_xml.text_fit import TextFit
from ray_xml.text_split import Draw

Progress = Callable[[str, int, int | None], None]
_SMALL = 4 << 20  # bytes of files that one process reads before others would have started


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


def prepare_text(
    train: Sequence[str | Path],
    out: str | Path,
    *,
    columns: Columns,
    test: Sequence[str | Path] | float = 0.1,
    dev: Sequence[str | Path] = (),
    settings: TextSettings | None = None,
    labels: Labels | None = None,
    filters: Mapping[str, str | Path] = MappingProxyType({}),
    embeddings: Mapping[str, str | Path] = MappingProxyType({}),
    embedding_weight: float = 1.0,
    words: bool = True,
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
        filters: by split, files of pairs that do not count in evaluation (see ``filter_file``); of
            splits with files of their own, whose documents they number.
        embeddings: by split, .npy files with a vector of each document (see ``embedding``), for all
            splits that have files; ``columns.embedding`` is the other way to give them.
        embedding_weight: length of the vectors beside words, which have length 1.
        words: make features of the texts, too.
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
    check_splits(filters, files if not share else ())
    pairs = {split: FilterPairs.read(path) for split, path in filters.items()}
    vectors = {split: EmbeddingFile(path) for split, path in embeddings.items()}
    _check_embeddings(files, columns, vectors, words=words)
    label_texts = label_texts or LabelTexts()
    if label_texts and not words:
        raise ConfigError("texts of labels need words: leave --no-words or the texts out")
    label_texts.check()
    label_texts.meet(labels)
    processes = processes or _processes(files)

    embedding: Embedding | None = None

    def open_writer(num_features: int, num_labels: int) -> DataSetWriter:
        return DataSetWriter(
            out,
            name=name or Path(out).absolute().name,
            num_features=num_features,
            num_labels=num_labels,
            embedding=embedding,
            overwrite=overwrite,
        )

    # Opened for nothing but its check of ``out``, which should not fail after a long reading.
    open_writer(1, 1)
    job = Job(columns, allow_empty, Draw(share, seed))
    found = _survey(files, job, settings if words else None, labels, processes, progress)
    vectorizer, notes, counted, width = found
    documents = sum(counted.values())
    for split, file in vectors.items():
        width = width or file.columns
        file.check(counted.get(split, 0), width)
    if width:
        embedding = _embedding(width, embedding_weight)
        vectorizer = vectorizer.beside(embedding)
    names = labels.names
    if not names:
        raise InputError(files["train"][0], f"no document has a label in {columns.labels!r}")
    with open_writer(vectorizer.num_features, len(names)) as writer:
        writer.write_label_names(names)
        vectorizer.write(writer)
        task = Read(columns, allow_empty, job.draw, vectorizer)
        splits = ["train", *(["dev"] if dev else []), "test"]
        results = in_order(task, _blocks(files, columns), processes=processes)
        counts = _write(writer, splits, results, labels, embedding, vectors, documents, progress)
        written = {split: part.meta for split, part in writer.splits.items() if part.meta}
        for split, found_pairs in pairs.items():
            matrix = found_pairs.rows(writer.splits[split].seen, len(names))
            writer.write_filter(split, matrix)
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


def _check_embeddings(
    files: dict[str, list[str]],
    columns: Columns,
    vectors: Mapping[str, EmbeddingFile],
    *,
    words: bool,
) -> None:
    check_one_source(vectors, columns.embedding)
    if vectors and vectors.keys() != files.keys():
        raise ConfigError(
            f"embeddings are given of {', '.join(vectors)}, and files of {', '.join(files)}: each "
            "split needs its own (--embeddings, --test-embeddings, --dev-embeddings)"
        )
    if not words and not vectors and columns.embedding is None:
        raise ConfigError("without words (--no-words) documents need embeddings")


def _embedding(width: int, weight: float) -> Embedding:
    try:
        return Embedding(columns=width, weight=weight)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"embeddings: {first['loc'][0]}: {first['msg']}") from error


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
    job: Job,
    settings: TextSettings | None,
    labels: Labels,
    processes: int,
    progress: Progress | None,
) -> tuple[Vectorizer, dict[str, int], dict[str, int], int]:
    """The first reading: (vectoriser, what to tell, documents by split of their files, length of
    their vectors or 0); ``labels`` and ``job.draw`` are settled by it.

    Args:
        settings: None for no words.
    """
    notes = {"empty_labels": 0, "cleaned_labels": 0}
    counted, width = dict.fromkeys(files, 0), 0
    task = Survey(job.columns, job.allow_empty, job.draw, settings)
    with TextFit(settings or TextSettings()) as fit:
        for seen in in_order(task, _blocks(files, job.columns), processes=processes):
            fit.add(seen.fitted, seen.terms)
            met = labels.meet(seen.labels)
            if seen.split == "train":
                job.draw.see(seen.hashes, met)
            counted[seen.split] += len(seen.hashes)
            width = width or seen.vector
            if seen.vector != width and len(seen.hashes):
                what = f"the embedding has {seen.vector:,} numbers, not {width:,} as those before"
                raise InputError(seen.path, f"row {seen.first:,}: {what}")
            notes["empty_labels"] += seen.empty_labels
            notes["cleaned_labels"] += seen.cleaned_labels
            if progress is not None:
                progress("words and labels", sum(counted.values()), None)
        job.draw.keep_labels()
        labels.settle()
        notes["moved_to_train"] = job.draw.moved
        if settings is None:
            none = Vectorizer(TextSettings(), fit.documents, np.zeros(0, np.int64), [])
            return none, notes, counted, width
        return fit.vectorizer(), notes, counted, width


def _in_files(results: Iterable[list[Part]], begun: dict[str, int]) -> Iterator[Part]:
    """The parts of blocks in the order of their files; ``begun`` says meanwhile how many documents
    of the same files came in earlier blocks."""
    for parts in results:
        yield from parts
        for part in parts:
            begun[part.source] += len(part.places)


def _write(
    writer: DataSetWriter,
    splits: list[str],
    results: Iterable[list[Part]],
    labels: Labels,
    embedding: Embedding | None,
    vectors: Mapping[str, EmbeddingFile],
    documents: int,
    progress: Progress | None,
) -> dict[str, SplitCounts]:
    """The second reading: writes the splits and what is told of their documents."""
    counts = {split: SplitCounts(len(labels.names)) for split in splits}
    told: dict[str, IO[str]] = {}
    done, begun = 0, dict.fromkeys(splits, 0)
    with ExitStack() as stack:
        with ExitStack() as parts:
            open_parts: dict[str, SplitWriter] = {
                split: parts.enter_context(writer.split(split, leave_out_empty=split == "train"))
                for split in splits
            }
            for part in _in_files(results, begun):
                rows, features = labels.meet(part.labels), part.words
                if embedding is not None:
                    own = part.vectors
                    if own is None:
                        own = vectors[part.source].take(part.places + begun[part.source])
                    features = embedding.beside(features, own)
                open_parts[part.split].append(features, rows)
                counts[part.split].add(rows, part.hashes)
                if part.lines is not None:
                    if part.split not in told:
                        told[part.split] = stack.enter_context(
                            tempfile.TemporaryFile("w+", encoding="utf-8")
                        )
                    kept = np.ones(len(part.lines), bool)
                    if part.split == "train":
                        kept = (features.counts > 0) & (rows.counts > 0)
                    told[part.split].writelines(part.lines[row] for row in np.flatnonzero(kept))
                done += len(part.hashes)
                if progress is not None:
                    progress("rows", done, documents)
        for split, file in told.items():
            file.seek(0)
            writer.write_lines(f"{split}_documents.jsonl", file)
    return counts
