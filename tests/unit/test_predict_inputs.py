"""Inputs of every kind, cut into parts, hold the same documents in the same order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import random_csr
from small_sets import assert_same

from ray_xml.embedding import Embedding
from ray_xml.errors import ConfigError, DataSetError, InputError
from ray_xml.predict_blocks import Documents, blocks
from ray_xml.predict_inputs import Texts, cut, find_inputs, find_texts
from ray_xml.row_files import Columns
from ray_xml.sparse import Csr, stacked
from ray_xml.store_write import DataSetWriter
from ray_xml.text_fit import fit

WIDTH, ROWS = 50, 137


@pytest.fixture(scope="module")
def features() -> Csr:
    return random_csr(np.random.default_rng(0), ROWS, WIDTH)


def as_table(features: Csr, *, large: bool = True, ids: bool = True) -> pa.Table:
    rows = features.packed()
    kind = pa.LargeListArray if large else pa.ListArray
    offsets = pa.array(rows.offsets, pa.int64() if large else pa.int32())
    columns = {
        "features": kind.from_arrays(offsets, pa.array(rows.ids)),
        "other": pa.array(range(rows.num_rows)),
        "values": kind.from_arrays(offsets, pa.array(rows.values, pa.float64())),
    }
    if ids:
        columns["id"] = pa.array([f"doc-{row}" for row in range(rows.num_rows)])
    return pa.table(columns)


def write(kind: str, folder: Path, features: Csr) -> str:
    """The documents in a form; returns what to ask for."""
    path = folder / kind
    if kind == "set":
        labels = Csr.from_lists([[0]] * features.num_rows, 3)
        with (
            DataSetWriter(path, name="x", num_features=WIDTH, num_labels=3) as writer,
            writer.split("test", leave_out_empty=False) as split,
        ):
            split.append(features, labels)
    elif kind == "xc.txt":
        lines = [f"{features.num_rows} {WIDTH}"]
        for row in range(features.num_rows):
            one = features.slice(row, row + 1).packed()
            pairs = zip(one.ids, one.values, strict=True)
            lines.append(" ".join(f"{i}:{float(v)!r}" for i, v in pairs))
        path.write_text("\n".join(lines) + "\n")
    elif kind == "one.parquet":
        pq.write_table(as_table(features), path, row_group_size=13)
    elif kind == "one.arrow":
        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, as_table(features, large=False).schema) as out,
        ):
            for batch in as_table(features, large=False).to_batches(max_chunksize=17):
                out.write_batch(batch)
    else:
        path.mkdir()
        (path / "notes.txt").write_text("not read")
        for number, low in enumerate(range(0, features.num_rows, 40)):
            table = as_table(features.slice(low, min(low + 40, features.num_rows)))
            pq.write_table(table, path / f"{number:03d}.parquet")
    return str(path)


KINDS = ("set", "xc.txt", "one.parquet", "one.arrow", "several")


@pytest.fixture(scope="module")
def places(features: Csr, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    return {kind: write(kind, folder, features) for kind in KINDS}


def read(source: str, size: int, block: int) -> list[list[Documents]]:
    return [list(blocks(part, WIDTH, block)) for part in cut(find_inputs(source, "test"), size)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "block"), [(1000, 1000), (32, 8), (30, 7), (1, 1)])
def test_every_kind_in_parts(
    features: Csr, places: dict[str, str], kind: str, size: int, block: int
) -> None:
    parts = read(places[kind], size, block)
    files = 4 if kind == "several" else 1
    counts = [40, 40, 40, 17] if kind == "several" else [ROWS]
    assert len(find_inputs(places[kind], "test")) == files
    assert [sum(b.features.num_rows for b in part) for part in parts] == [
        min(size, count - low) for count in counts for low in range(0, count, size)
    ]
    for part in parts:
        assert all(one.features.num_rows == block for one in part[:-1])
    together = [one for part in parts for one in part]
    assert_same(stacked([one.features for one in together], WIDTH), features)
    ids = [name for one in together if one.ids is not None for name in one.ids.to_pylist()]
    if kind in ("set", "xc.txt"):
        assert ids == []
    elif kind != "several":
        assert ids == [f"doc-{row}" for row in range(ROWS)]


def test_parts_know_their_place(places: dict[str, str]) -> None:
    parts = cut(find_inputs(places["several"], "test"), 25)
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [part.start for part in parts] == [0, 25, 40, 65, 80, 105, 120]
    assert [part.first for part in parts] == [0, 25, 0, 25, 0, 25, 0]
    assert {part.file.name for part in parts} == {f"{n:03d}.parquet" for n in range(4)}


def test_a_url_is_read_like_a_path(features: Csr, places: dict[str, str]) -> None:
    for kind in ("one.parquet", "one.arrow", "several"):
        found = read(Path(places[kind]).as_uri(), 50, 50)
        together = [one.features for part in found for one in part]
        assert_same(stacked(together, WIDTH), features)
    with pytest.raises(InputError, match="fetch it first"):
        find_inputs(Path(places["xc.txt"]).as_uri(), "test")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.permutations(list(range(6))).map(lambda p: p[:3]), min_size=1, max_size=5))
def test_features_in_any_order(tmp_path_factory: pytest.TempPathFactory, rows: Any) -> None:
    path = tmp_path_factory.mktemp("order") / "x.parquet"
    values = [[float(i + 1) for i in row] for row in rows]
    table = pa.table(
        {
            "features": pa.array(rows, pa.list_(pa.int64())),
            "values": pa.array(values, pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, path)
    found = [one.features for part in read(str(path), 10, 10) for one in part]
    expected = Csr.from_lists(
        [sorted(row) for row in rows], WIDTH, [[float(i + 1) for i in sorted(row)] for row in rows]
    )
    assert_same(stacked(found, WIDTH), expected)


@pytest.mark.parametrize(
    ("features", "values", "said"),
    [
        ([[1], [2, 50]], [[1.0], [1.0, 1.0]], r"document 1: feature 50 is not in 0\.\.49"),
        ([[1], [-1]], [[1.0], [1.0]], r"document 1: feature -1 is not in 0\.\.49"),
        ([[1, 2], [3]], [[1.0], [1.0, 2.0]], "document 0: features and values are not equally"),
        ([[1], [3]], [[1.0], [float("nan")]], "document 1: a value is not finite"),
        ([[1], [3, 4, 3]], [[1.0], [1.0, 2.0, 3.0]], "document 1: feature 3 is there twice"),
        ([[1], None], [[1.0], [1.0]], "column 'features' has nulls"),
        ([[1], [None]], [[1.0], [1.0]], "column 'features' has nulls"),
        ([[1], [2]], [["a"], ["b"]], "column 'values' is list<.*not a list of float"),
        ([[1], [2]], [1.0, 2.0], "column 'values' is double, not a list"),
    ],
)
def test_faulty_documents_are_told(tmp_path: Path, features: Any, values: Any, said: str) -> None:
    pq.write_table(pa.table({"features": features, "values": values}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=said):
        read(str(tmp_path / "x.parquet"), 10, 10)


def test_places_without_documents_are_told(tmp_path: Path, places: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such file or folder"):
        find_inputs(str(tmp_path / "nowhere"), "test")
    with pytest.raises(InputError, match=r"neither a data set nor \.parquet or \.arrow"):
        find_inputs(str(tmp_path), "test")
    with pytest.raises(DataSetError, match="no split 'dev'"):
        find_inputs(places["set"], "dev")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="this is no parquet file"):
        find_inputs(str(tmp_path / "bad.parquet"), "test")
    pq.write_table(pa.table({"id": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="there is no column 'features', only id"):
        read(str(tmp_path / "other.parquet"), 10, 10)


def test_a_file_that_became_shorter_is_told(tmp_path: Path, features: Csr) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(as_table(features), path)
    parts = cut(find_inputs(str(path), "test"), 100)
    pq.write_table(as_table(features.slice(0, 120)), path)
    assert len(list(blocks(parts[0], WIDTH, 100))) == 1
    with pytest.raises(InputError, match="had 137 documents and now ends after 120"):
        list(blocks(parts[1], WIDTH, 100))


def test_what_identifies_an_input(places: dict[str, str]) -> None:
    (told,) = (file.told() for file in find_inputs(places["set"], "test"))
    assert set(told) == {"name", "bytes", "rows", "checksum"}
    assert (told["name"], told["rows"]) == ("test", ROWS)
    (told,) = (file.told() for file in find_inputs(places["one.arrow"], "test"))
    assert told == {
        "name": "one.arrow", "bytes": Path(places["one.arrow"]).stat().st_size, "rows": ROWS,
    }  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents in every kind of file, lines of white space among them."""
    folder = tmp_path_factory.mktemp("texts")
    rng = np.random.default_rng(4)
    words = [f"w{number:02d}" for number in range(40)]
    rows = [" ".join(rng.choice(words, 5)) if row % 9 else "" for row in range(ROWS)]
    vectors = rng.standard_normal((ROWS, 20)).astype(np.float16)
    np.save(folder / "vectors.npy", vectors)
    lines = [
        json.dumps({"body": text, "vector": vector.astype(float).tolist()})
        for text, vector in zip(rows, vectors, strict=True)
    ]
    (folder / "a.jsonl").write_text("\n \n".join(lines[:50]) + "\n\u00a0\n" + "\n".join(lines[50:]))
    (folder / "a.txt").write_text("\n".join(rows))
    (folder / "a.csv").write_text("body,x\n" + "".join(f"{text},1\n" for text in rows))
    (folder / "parts").mkdir()
    for number, (low, high) in enumerate(((0, 60), (60, 61), (61, ROWS))):
        table = {
            "body": rows[low:high],
            "vector": [v.tolist() for v in vectors[low:high].astype(float)],
        }
        pq.write_table(pa.table(table), folder / "parts" / f"{number}.parquet", row_group_size=7)
    return folder


@pytest.mark.parametrize("size", [1, 10, 64, 1000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "parts"])
def test_texts_in_parts(texts: Path, name: str, size: int) -> None:
    column = "text" if name == "a.txt" else "body"
    source = str(texts / name)
    vectorizer = fit((texts / "a.txt").read_text().split("\n"))
    words = vectorizer.transform((texts / "a.txt").read_text().split("\n"))
    files = find_texts(source, Texts(Columns(text=(column,))))
    parts = cut(files, size)
    assert sum(part.rows for part in parts) == ROWS
    found = [one.features for part in parts for one in blocks(part, 0, 16, vectorizer)]
    assert_same(stacked(found, words.num_columns), words)
    vectors = np.load(texts / "vectors.npy")
    both = vectorizer.beside(Embedding(columns=20, weight=2.0))
    expected = both.transform((texts / "a.txt").read_text().split("\n"), vectors)
    given = [Texts(Columns(text=(column,)), str(texts / "vectors.npy"))]
    if name in ("a.jsonl", "parts"):
        given.append(Texts(Columns(text=(column,), embedding="vector")))
    for how in given:
        parts = cut(find_texts(source, how), size)
        found = [one.features for part in parts for one in blocks(part, 0, 16, both)]
        assert_same(stacked(found, both.num_features), expected)


def test_faulty_texts_are_told(texts: Path, tmp_path: Path) -> None:
    how = Texts(Columns(text=("body",)), str(texts / "vectors.npy"))
    (tmp_path / "short.csv").write_text("body\na\n")
    with pytest.raises(InputError, match=r"vectors\.npy: it has 137 rows for 1 documents"):
        find_texts(str(tmp_path / "short.csv"), how)
    with pytest.raises(InputError, match="fetch it first"):
        find_texts("memory://a/b.csv", how)
    with pytest.raises(ConfigError, match="one of the two"):
        find_texts(str(texts / "a.jsonl"), replace(how, columns=Columns(("body",), embedding="v")))
    told = find_texts(str(texts / "a.jsonl"), how)[0].told()
    assert told["columns"] == ["body", None]
    assert told["embeddings"]["name"] == "vectors.npy"
