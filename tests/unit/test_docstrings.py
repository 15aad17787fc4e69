"""The docstring data set: what is scanned and how the documents are split."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from ray_xml.calls import Document
from ray_xml.docstrings import DEFAULT_PACKAGES, collect, prepare_docstrings, split
from ray_xml.errors import ConfigError, DataSetError
from ray_xml.store import DataSet
from ray_xml.text import Vectorizer


def make_site(folder: Path) -> Path:
    """A folder with packages of good, bad and skipped files."""

    def write(name: str, source: str | bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else dedent(source).encode())

    documented = "from x import y\ndef f():\n    'Text {}.'\n    y()\n"
    write("one/__init__.py", "raise SystemExit('never imported')\n" + documented.format("a"))
    write("one/b.py", "from .near import g\n" + documented.format("b") + "    g()\n")
    write("one/a/c.py", documented.format("c") + "w = '\\d' is 'e'\n")  # two SyntaxWarnings
    write("one/latin.py", "# coding: latin-1\ndef f():\n    'Gr\xf6\xdfe.'\n".encode("latin-1"))
    for skipped in ("tests/t.py", "a/test/t.py", "_vendor/v.py", "test_z.py", "conftest.py"):
        write(f"one/{skipped}", documented.format(skipped))
    write("one/syntax.py", "def f(:\n")
    write("one/zero.py", b"x = 1\0")
    write("one/bytes.py", b"'\xff'")
    write("two/m.py", documented.format("two"))
    return folder


def test_collect_reads_sorted_sources_and_counts_the_broken(tmp_path: Path) -> None:
    corpus = collect(("one", "two", "absent"), processes=1, site=make_site(tmp_path))
    assert [document.name for document in corpus.documents] == [
        "one.f",
        "one.a.c.f",
        "one.b.f",
        "one.latin.f",
        "two.m.f",
    ]
    assert corpus.documents[2].labels == ("one.near.g", "x.y")
    assert corpus.documents[3].docstring == "Größe."
    assert (corpus.packages, corpus.missing) == (("one", "two"), ("absent",))
    assert (corpus.files, corpus.failed) == (8, 3)
    assert "one" not in sys.modules


def test_the_number_of_processes_changes_nothing() -> None:
    packages = ("joblib", "click")  # more files than one process is handed at a time
    assert collect(packages, processes=1) == collect(packages, processes=2)


def test_packages_that_cannot_be_scanned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of the packages absent is installed"):
        collect(("absent",), site=tmp_path)
    for name in ("numpy.linalg", "../elsewhere", ""):
        with pytest.raises(ConfigError, match="top-level package"):
            collect((name,))


def test_an_installed_package_is_found() -> None:
    corpus = collect(("joblib", "no_such_package_here"), processes=1)
    assert corpus.missing == ("no_such_package_here",)
    assert corpus.failed == 0
    found = {label for document in corpus.documents for label in document.labels}
    assert {"os.path.join", "warnings.warn"} <= found
    assert len(set(DEFAULT_PACKAGES)) == len(DEFAULT_PACKAGES)


def made_documents(count: int) -> list[Document]:
    return [
        Document(f"pkg.f{i}", f"Text number {i}.", tuple(sorted({"x.all", f"x.some{i % 7}"})))
        for i in range(count)
    ]


def names(documents: list[Document]) -> list[str]:
    return [document.name for document in documents]


def test_the_split_keeps_its_share_and_follows_the_seed_alone() -> None:
    documents = made_documents(2000)
    train, test = split(documents, min_documents=2, test_fraction=0.2, seed=0)
    assert len(train) + len(test) == 2000
    assert 340 < len(test) < 460  # five standard deviations of a binomial are 89
    again = split(documents[::-1], min_documents=2, test_fraction=0.2, seed=0)
    assert names(again[1]) == names(test)[::-1]
    fewer = split(documents[:1000], min_documents=2, test_fraction=0.2, seed=0)
    assert names(fewer[1]) == [name for name in names(test) if int(name[5:]) < 1000]
    other = split(documents, min_documents=2, test_fraction=0.2, seed=1)
    assert names(other[1]) != names(test)


def test_copies_go_in_once() -> None:
    copies = [
        Document("pkg.bare", "Text number 0.", ()),  # without labels it stands for no other
        *made_documents(100),
        *(Document(f"pkg.copy{i}", f"TEXT  number\n{i}.", ("x.all",)) for i in range(100)),
    ]
    train, test = split(copies, min_documents=2, test_fraction=0.3, seed=0)
    texts = [" ".join(d.docstring.split()).casefold() for d in (*train, *test)]
    assert len(texts) == len(set(texts)) == 100
    assert not any(name.startswith("pkg.copy") for name in names([*train, *test]))


def test_rare_labels_and_labels_that_train_lacks_are_dropped() -> None:
    documents = made_documents(40)
    train, test = split(documents, min_documents=1, test_fraction=0.3, seed=0)
    in_test = set(names(test))
    # One label on a single document, one on two test documents only, one on a document each.
    extra = {names(train)[0]: ("x.rare",)}
    extra |= dict.fromkeys(names(test)[:2], ("x.test_only",))
    extra |= dict.fromkeys((names(train)[1], names(test)[2]), ("x.both",))
    marked = [Document(d.name, d.docstring, extra.get(d.name, d.labels)) for d in documents]
    train, test = split(marked, min_documents=2, test_fraction=0.3, seed=0)
    kept = {document.name: document.labels for document in (*train, *test)}
    assert {label for found in kept.values() for label in found} == {
        "x.all",
        "x.both",
        *(f"x.some{i}" for i in range(7)),
    }
    assert set(kept) == set(names(documents)) - {
        name for name, given in extra.items() if given != ("x.both",)
    }
    assert set(names(test)) <= in_test


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="no documents are left for the train split"):
        split([], min_documents=2, test_fraction=0.2, seed=0)
    with pytest.raises(ConfigError, match="no documents are left for the test split"):
        split(made_documents(5), min_documents=1, test_fraction=1e-9, seed=0)


def test_prepare_writes_a_data_set(tmp_path: Path) -> None:
    said: list[str] = []
    result = prepare_docstrings(
        tmp_path / "set", packages=("joblib", "click"), processes=1, progress=said.append
    )
    data = DataSet.open(tmp_path / "set")
    train, test = data.split("train"), data.split("test")
    label_names = list(data.label_names())
    assert (train.features.num_rows, test.features.num_rows) == (result.train, result.test)
    assert (train.labels.num_rows, test.labels.num_rows) == (result.train, result.test)
    assert train.features.num_columns == test.features.num_columns == result.features
    assert train.labels.num_columns == len(label_names) == result.labels
    assert label_names == sorted(set(label_names))
    assert train.labels.column_counts().min() >= 1
    assert (train.labels.column_counts() + test.labels.column_counts()).min() >= 2
    assert min(train.labels.counts.min(), test.labels.counts.min()) >= 1
    assert len(said) == 3

    # The stored vectoriser and test documents belong to the stored rows.
    documents = {d.name: d for d in collect(("joblib", "click"), processes=1).documents}
    vectorizer = Vectorizer.load(tmp_path / "set")
    lines = (tmp_path / "set" / "test_documents.jsonl").read_text().splitlines()
    assert len(lines) == result.test
    shown = [json.loads(line) for line in lines]
    rows = vectorizer.transform(documents[line["name"]].text for line in shown)
    stored = test.features.packed()
    np.testing.assert_array_equal(rows.ids, stored.ids)
    np.testing.assert_array_equal(rows.values, stored.values)
    for row, line in enumerate(shown):
        document = documents[line["name"]]
        assert line["summary"] == document.docstring.splitlines()[0]
        span = slice(test.labels.offsets[row], test.labels.offsets[row + 1])
        assert {label_names[i] for i in test.labels.ids[span]} <= set(document.labels)


def test_prepare_says_before_the_scan_that_the_place_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataSetError, match="left alone"):
        prepare_docstrings(tmp_path, packages=("no_such_package_here",))


def test_prepare_is_repeatable(tmp_path: Path) -> None:
    checksums = []
    for _ in range(2):
        prepare_docstrings(tmp_path / "set", packages=("click",), processes=1, overwrite=True)
        checksums.append(DataSet.open(tmp_path / "set").meta.checksum)
    assert checksums[0] == checksums[1]


def test_prepare_refuses_bad_settings(tmp_path: Path) -> None:
    for bad in ({"min_documents": 0}, {"test_fraction": 0.0}, {"test_fraction": 1.0}):
        with pytest.raises(ConfigError, match="must"):
            prepare_docstrings(tmp_path, **bad)  # type: ignore[arg-type]
