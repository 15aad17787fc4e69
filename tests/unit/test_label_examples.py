"""New labels in a file: what is read, and what is refused with the place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ray_xml.errors import InputError
from ray_xml.label_examples import LabelExamples, read_examples
from ray_xml.row_files import Columns
from ray_xml.text import TextSettings, Vectorizer
from ray_xml.text_fit import fit

COLUMNS = Columns(text=("text",), labels="label")


@pytest.fixture(scope="module")
def vectorizer() -> Vectorizer:
    return fit(["red green", "blue green", "grey"], TextSettings(min_df=1))


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(found: LabelExamples) -> list[tuple[list[int], list[int]]]:
    """(features, labels) of each document."""
    pairs = []
    for at in range(found.features.num_rows):
        features, labels = (
            one.slice(at, at + 1).packed().ids.tolist() for one in (found.features, found.labels)
        )
        pairs.append((features, labels))
    return pairs


def test_examples_of_several_labels(tmp_path: Path, vectorizer: Vectorizer) -> None:
    file = written(
        tmp_path / "new.jsonl",
        [
            {"label": "warm", "text": "red"},
            {"label": ["cold", "warm"], "text": "blue red"},
            {"label": "  grey  things ", "text": None},
            {"label": ["cold"], "text": "blue green"},
        ],
    )
    found = read_examples(file, COLUMNS, vectorizer, ["known"])
    assert found.names == ["warm", "cold", "grey things"]
    assert found.named.tolist() == [False, False, True, False]
    names = vectorizer.names
    assert names is not None
    red, blue, grey, green = (names.index(name) for name in ("red", "blue", "grey", "green"))
    assert rows_of(found) == [
        ([red], [0]),
        (sorted([blue, red]), [0, 1]),
        ([grey], [2]),
        (sorted([blue, green]), [1]),
    ]


def test_other_kinds_of_files(tmp_path: Path, vectorizer: Vectorizer) -> None:
    csv, parquet = tmp_path / "new.csv", tmp_path / "new.parquet"
    csv.write_text("label,text\nwarm,red\ncold|warm,blue red\n", encoding="utf-8")
    pq.write_table(
        pa.table({"label": [["warm"], ["cold", "warm"]], "text": ["red", "blue red"]}), parquet
    )
    cut = Columns(text=("text",), labels="label", separator="|")
    first = read_examples(str(csv), cut, vectorizer, [])
    second = read_examples(str(parquet), COLUMNS, vectorizer, [])
    assert first.names == second.names == ["warm", "cold"]
    assert rows_of(first) == rows_of(second)


def test_names_alone(tmp_path: Path, vectorizer: Vectorizer) -> None:
    file = written(tmp_path / "new.jsonl", [{"label": "grey"}, {"label": "red green"}])
    found = read_examples(file, Columns(text=(), labels="label"), vectorizer, [])
    assert found.names == ["grey", "red green"]
    assert found.named.all()
    (tmp_path / "names.txt").write_text("grey\nred green\n")
    listed = read_examples(str(tmp_path / "names.txt"), Columns((), "text"), vectorizer, [])
    assert listed.names == found.names


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"label": "known", "text": "red"}], r"new\.jsonl:1: the model has a label 'known'"),
        ([{"label": "a", "text": "red"}, {"label": " ", "text": "red"}], r":2: .*names no label"),
        ([{"label": None, "text": "red"}], r":1: the row names no label"),
        (
            [
                {"label": name, "text": text}
                for name, text in (("a", "red"), ("b", "red"), ("a", " red "))
            ],
            r":3: label 'a' has the same text in row 1",
        ),
        ([{"label": "a"}] * 2, r":1: there is no 'text'"),
        (
            [{"label": "grey", "text": ""}, {"label": "grey", "text": None}],
            r":2: label 'grey' stands without a text in row 1",
        ),
        ([{"label": "a", "text": "red"}, {"label": "a", "text": "teal"}], r":2: no word of the"),
        ([{"label": "teal", "text": ""}], r":1: no word of the name 'teal' is one"),
        ([{"label": 3.5, "text": "red"}], r":1: 'label' should be a list"),
    ],
)
def test_faults_are_told_with_their_line(
    tmp_path: Path, vectorizer: Vectorizer, rows: list[dict[str, Any]], told: str
) -> None:
    file = written(tmp_path / "new.jsonl", rows)
    with pytest.raises(InputError, match=told):
        read_examples(file, COLUMNS, vectorizer, ["known"])


def test_a_file_without_rows(tmp_path: Path, vectorizer: Vectorizer) -> None:
    (tmp_path / "new.csv").write_text("label,text\n", encoding="utf-8")
    with pytest.raises(InputError, match="there is no row"):
        read_examples(str(tmp_path / "new.csv"), COLUMNS, vectorizer, [])
