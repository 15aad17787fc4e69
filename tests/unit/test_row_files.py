"""Files of texts: each kind gives the same rows, and what is wrong is told with its place."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from ray_xml import row_files
from ray_xml.errors import ConfigError, InputError
from ray_xml.row_files import Columns, check_files, read_rows
from ray_xml.row_values import Rows, clean_label, content_hashes, rows_of

COLUMNS = Columns(text=("title", "body"), labels="tags", separator=";", id="key")
TITLES = ["Größe", 'a "quoted", one', "two\nlines", ""]
BODIES = ["first", "", "third", "only a body"]
TAGS = [["x", "y z"], [], ["ü"], ["x"]]
KEYS = ["k1", "k2", "k3", "k4"]
TEXTS = ["Größe\nfirst", 'a "quoted", one', "two\nlines\nthird", "only a body"]


def read(path: Path, columns: Columns = COLUMNS, *, allow_empty: bool = False) -> Rows:
    found = Rows()
    for block in read_rows([str(path)], columns):
        rows = rows_of(block, columns, allow_empty=allow_empty)
        found.numbers += rows.numbers
        found.texts += rows.texts
        found.labels += rows.labels
        found.ids += rows.ids
        found.empty_labels += rows.empty_labels
        found.cleaned_labels += rows.cleaned_labels
    return found


def jsonl(path: Path) -> None:
    rows = zip(TITLES, BODIES, TAGS, KEYS, strict=True)
    lines = [dict(zip(("title", "body", "tags", "key"), row, strict=True)) for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")


def as_csv(path: Path, delimiter: str = ",") -> None:
    joined = [";".join(tags) for tags in TAGS]
    table = pa.table(
        {"key": KEYS, "title": TITLES, "tags": joined, "n": [1, 2, 3, 4], "body": BODIES}
    )
    pcsv.write_csv(table, path, pcsv.WriteOptions(delimiter=delimiter))


def parquet(path: Path) -> None:
    pq.write_table(pa.table({"title": TITLES, "body": BODIES, "tags": TAGS, "key": KEYS}), path)


def packed(write: Callable[[Path], None], pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path)
        path.write_bytes(pack(path.read_bytes()))

    return make


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.jsonl", jsonl),
        ("a.json.gz", packed(jsonl, gzip.compress)),
        ("a.ndjson.xz", packed(jsonl, lzma.compress)),
        ("a.csv", as_csv),
        ("a.CSV.gz", packed(as_csv, gzip.compress)),
        ("a.tsv", lambda path: as_csv(path, "\t")),
        ("a.tsv.xz", packed(lambda path: as_csv(path, "\t"), lzma.compress)),
        ("a.parquet", parquet),
    ],
)
def test_every_kind_gives_the_same_rows(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    # Arrow takes .gz files apart by itself unless they are written as plain bytes.
    plain = tmp_path / "plain"
    make(plain)
    path = plain.rename(tmp_path / name)
    rows = read(path)
    assert (rows.texts, rows.labels, rows.ids) == (TEXTS, TAGS, KEYS)


def test_plain_text_files_have_a_line_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\ntwo  words\nlast".encode())
    rows = read(tmp_path / "a.txt", Columns(text=("text",)), allow_empty=True)
    assert rows.texts == ["one", "", "two  words", "last"]
    assert rows.numbers == [1, 2, 3, 4]
    with pytest.raises(InputError, match="the columns are: text"):
        read(tmp_path / "a.txt", Columns(text=("title",)))


def test_a_folder_of_parquet_files_goes_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        pq.write_table(pa.table({"text": [name]}), tmp_path / f"{name}.parquet")
    assert read(tmp_path, Columns(text=("text",))).texts == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.parquet files"):
        read(tmp_path / "empty", Columns(text=("text",)))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_blocks_do_not_change_what_is_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {i}\n" + "word " * (i % 7) for i in range(500)]
    texts[333] = "long " * 500  # a row larger than a block
    table = pa.table({"text": texts})
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        pcsv.write_csv(table, path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        pq.write_table(table, path)
    monkeypatch.setattr(row_files, "_BLOCK", 700)
    monkeypatch.setattr(row_files, "_ROWS", 9)
    blocks = list(read_rows([str(path)], Columns(text=("text",))))
    assert len(blocks) > 10
    rows = read(path, Columns(text=("text",)))
    assert rows.texts == texts
    if kind != "csv":  # the long row begins the file anew, and rows stay numbered
        assert rows.numbers == list(range(1, 501))
    assert rows.numbers == sorted(set(rows.numbers))


def wrong(path: Path, columns: Columns, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(path, columns)
    assert caught.value.file == str(path)


TEXT = Columns(text=("text",), labels="tags")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "tags": "x;y"}', ":3: 'tags' is a text.*--label-separator"),
        ('{"text": "a", "tags": 5}', ":3: 'tags' should be a list of labels, not 5"),
        ('{"text": "a", "tags": [true]}', ":3: 'tags' holds True"),
        ('{"text": "a", "tags": [["x"]]}', ":3: 'tags' holds a list of 1"),
        ('{"text": "a"}', ":3: there is no 'tags'; the keys are: 'text'"),
        ('{"tags": []}', ":3: there is no 'text'; the keys are: 'tags'"),
        ('{"text": 7, "tags": []}', ":3: 'text' should be a text, not 7"),
        ('{"text": " ", "tags": []}', ":3: there is no text in 'text'.*--allow-empty"),
        ('{"text": null, "tags": []}', ":3: there is no text"),
        ('["text"]', ":3: a JSON object .* not a list of 1"),
        ('{"text": "a"', ":3: this is no JSON"),
        ("[" * 100_000, ":3: this is no JSON .nested too deep"),
        (b'{"text": "\xff"}', ":3:11: the line is not UTF-8"),
    ],
)
def test_faults_of_json_lines_name_the_line(
    tmp_path: Path, line: str | bytes, message: str
) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    good = b'{"text": "a", "tags": ["x", 3]}\n'
    (tmp_path / "a.jsonl").write_bytes(good + b"\n" + raw + b"\n" + good)
    wrong(tmp_path / "a.jsonl", TEXT, message)


def test_a_json_array_is_told_how_to_become_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n{"text": "a"}\n]\n')
    wrong(tmp_path / "a.json", TEXT, "jq -c")


CUT = Columns(text=("text",), labels="tags", separator=";")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text,tags\na,x\n ,y\n", "row 2: there is no text"),
        (b"text,tags\na,x\n\xff,y\n", "row 2: column 'text' is not UTF-8 text .byte 1"),
        (b"title,tag\na,x\n", "no column 'text'; the columns are: title, tag"),
        (b"text,text,tags\na,x,y\n", "several columns 'text'"),
        (b"text,tags\na,x,z\n", "Expected 2 columns, got 3"),
        (b"", "no sound CSV file"),
        (b'text,tags\n"a,x\n', "no sound CSV|no text|row"),
    ],
)
def test_faults_of_csv_files_name_the_row(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    wrong(tmp_path / "a.csv", CUT, message)


def test_a_csv_file_of_lists_needs_a_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,tags\na,x\n")
    wrong(tmp_path / "a.csv", TEXT, "row 1: 'tags' is a text.*--label-separator")
    with pytest.raises(ConfigError, match="one character"):
        read(tmp_path / "a.csv", Columns(text=("text",), delimiter="::"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": [1], "tags": [["a"]]}, "column 'text' is int64, not text"),
        ({"text": ["a"], "tags": ["x;y"]}, "column 'tags' is string, not a list.*--label-sep"),
        ({"text": ["a"], "tags": [[0.5]]}, "column 'tags' is list<.*double"),
        ({"text": ["a"]}, "no column 'tags'; the columns are: text"),
    ],
)
def test_parquet_columns_are_checked_before_they_are_read(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        check_files([str(tmp_path / "a.parquet")], TEXT)


def test_parquet_nulls_are_no_labels_and_no_text(tmp_path: Path) -> None:
    tags = pa.array([None, [1, 2]], pa.list_(pa.int64()))
    pq.write_table(pa.table({"text": ["a", None], "tags": tags}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", TEXT, allow_empty=True).labels == [[], ["1", "2"]]
    wrong(tmp_path / "a.parquet", TEXT, "row 2: there is no text")


def test_parquet_text_is_checked_for_utf_8(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"bad \xff"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), text)
    fine = pa.array(["a", "b"])
    for name, columns in (("text", [text, [["x"], []]]), ("tags", [fine, tags])):
        pq.write_table(
            pa.table(dict(zip(("text", "tags"), columns, strict=True))), tmp_path / "a.parquet"
        )
        wrong(tmp_path / "a.parquet", TEXT, f"row 2: column '{name}' is not UTF-8")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.txt", "a.csv.gz"])
def test_missing_and_foreign_files_are_told(tmp_path: Path, name: str) -> None:
    wrong(tmp_path / name, Columns(text=("text",)), "there is no such file")
    (tmp_path / name).write_bytes(b"\0\xff\0PAR1" * 50)
    with pytest.raises(InputError):
        read(tmp_path / name, Columns(text=("text",)))
    wrong(tmp_path / "a.docx", Columns(text=("text",)), "the ending should be one of")


def test_labels_are_cleaned_by_a_rule(tmp_path: Path) -> None:
    assert clean_label("  two\n\tlines \u2028 x ") == "two lines x"
    assert clean_label("\ud800ü") == "\ufffdü"
    line = {"text": "a", "tags": [" x ", "", " ", "a\nb", "a b"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    rows = read(tmp_path / "a.jsonl", TEXT)
    assert rows.labels == [["x", "a b", "a b"]]
    assert (rows.empty_labels, rows.cleaned_labels) == (2, 1)


def test_numbered_labels_stay_in_range(tmp_path: Path) -> None:
    columns = Columns(text=("text",), labels="tags", below=3)
    for given, fine in (("[0, 2]", True), ("[3]", False), ("[-1]", False), ('["1"]', False)):
        (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "tags": {given}}}')
        if fine:
            assert read(tmp_path / "a.jsonl", columns).labels == [["0", "2"]]
        else:
            wrong(tmp_path / "a.jsonl", columns, "labels are 0 to 2")


def test_hashes_tell_texts_apart_but_for_spacing_and_case() -> None:
    found = content_hashes(["One  two", "one\nTWO ", "one twos", "\ud800", ""])
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 4
