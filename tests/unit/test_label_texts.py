"""Labels' own texts: into a data set, through training, and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import make_config
from trained import run_at
from worded import texts

from ray_xml.add_labels import add_labels
from ray_xml.cli import main
from ray_xml.errors import InputError
from ray_xml.export import export
from ray_xml.label_examples import LabelExamples
from ray_xml.label_texts import LabelTexts
from ray_xml.model import model_of_run
from ray_xml.predictor import Predictor
from ray_xml.prepare_lf import prepare_lf
from ray_xml.prepare_text import prepare_text
from ray_xml.row_files import Columns
from ray_xml.run_data import fitted_documents, metric_sums, split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet

COLUMNS = Columns(text=("text",), labels="labels", id="key")
GONE = "about 11"
Capture = pytest.CaptureFixture[str]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Documents, none of which is about one of the labels, and texts of the labels."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(5)
    rows = [
        # A word of any topic besides, so that the vocabulary has those of the topic that is gone.
        {
            "text": f"{text} topic{rng.integers(12)}word{rng.integers(5)}",
            "labels": labels,
            "key": f"doc-{number}",
        }
        for number, (text, labels) in enumerate(texts(0, 280))
        if GONE not in labels
    ]
    own = [
        {"label": f"about {topic}", "text": " ".join(f"topic{topic}word{i}" for i in range(5))}
        for topic in range(12)
    ]
    own += [{"label": "unheard of", "text": "unknown words"}, {"label": "empty", "text": None}]
    return write(folder / "all.jsonl", rows), write(folder / "labels.jsonl", own)


@pytest.fixture(scope="module")
def data(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("texts") / "data"
    own = LabelTexts([files[1]], Columns(text=("text",), labels="label"))
    prepare_text([files[0]], folder, columns=COLUMNS, label_texts=own, processes=1)
    return DataSet.open(folder)


@pytest.fixture(scope="module")
def plain(files: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("plain") / "data"
    prepare_text([files[0]], folder, columns=COLUMNS, processes=1)
    return DataSet.open(folder)


def trained(data: DataSet, folder: Path, **training: Any) -> RunFolder:
    return run_at(
        data,
        folder,
        parts=2,
        training={"epochs": 2, "batch_size": 32, "cycle_epochs": 1, "validation": 0.2, **training},
        neighbors={"size": 20},
    )


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained(data, tmp_path_factory.mktemp("run") / "run")


def test_texts_stand_apart_from_the_documents(data: DataSet, plain: DataSet) -> None:
    data.verify()
    for split in ("train", "test"):
        ours, theirs = data.split(split), plain.split(split)
        assert np.array_equal(ours.features.ids, theirs.features.ids)
        assert np.array_equal(ours.features.values, theirs.features.values)
    names = data.label_names()
    assert names is not None
    assert {GONE, "unheard of", "empty"} == set(names) - set(plain.label_names() or [])
    own = data.split("label_texts")
    assert own.num_documents == 12
    assert own.labels.counts.tolist() == [1] * 12
    assert [names[label] for label in own.labels.ids] == [f"about {topic}" for topic in range(12)]
    terms = data.feature_names()
    assert terms is not None
    first = own.features.slice(3, 4).packed()
    assert {terms[term] for term in first.ids} <= {f"topic3word{i}" for i in range(5)}
    summary = json.loads((data.path / "summary.json").read_text())
    assert summary["label_texts"] == {
        "documents": 12,
        "labels": 12,
        "labels_without_train_documents": 1,
        "left_out": 2,
    }
    assert summary["labels_without_train_documents"] == 3


def test_they_are_trained_on_and_no_yardstick(data: DataSet) -> None:
    config = make_config(training={"validation": 0.2})
    rows, held = split_rows(data, config)
    fitted = fitted_documents(data, config)
    total = data.split("train").num_documents
    assert fitted.texts == 12
    assert fitted.rows.tolist() == [*rows.tolist(), *range(total, total + 12)]
    assert held.max() < total
    assert fitted.features.num_rows == fitted.labels.num_rows == len(rows) + 12
    counts = data.split("train").labels.column_counts()
    sums = metric_sums(data, config.dataset)
    expected = metric_sums(data, config.dataset).inverse_propensities
    assert np.array_equal(sums.inverse_propensities, expected)
    added = fitted.labels.column_counts() - data.split("train").labels.take(rows).column_counts()
    assert added.sum() == 12
    assert added.max() == 1
    assert counts[(data.label_names() or []).index(GONE)] == 0
    off = make_config(training={"validation": 0.2, "label_texts": False})
    assert fitted_documents(data, off).texts == 0


def test_a_label_without_documents_is_found_by_its_text(run: RunFolder, data: DataSet) -> None:
    predictor = Predictor.load(run.path)
    asked = texts(3, 200)
    places: dict[bool, list[int]] = {True: [], False: []}
    found = predictor.predict([text for text, _ in asked], top_k=12)
    for (_, labels), tags in zip(asked, found, strict=True):
        names = [tag.name for tag in tags]
        places[GONE in labels].append(names.index(GONE) if GONE in names else len(names))
    assert len(places[True]) > 15
    # Others have dozens of documents and it has a text alone, which the score holds against it.
    assert np.mean(np.array(places[True]) < 2) > 0.4
    assert np.mean(np.array(places[False]) < 2) < 0.1
    number = (data.label_names() or []).index("unheard of")
    assert number not in predictor.model.labels  # its text has no known word


def test_without_them_it_cannot_be(data: DataSet, tmp_path: Path) -> None:
    model = model_of_run(trained(data, tmp_path / "run", label_texts=False).path)
    assert (data.label_names() or []).index(GONE) not in model.labels


def test_reasons_number_them_behind_train(run: RunFolder, data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export(model_of_run(run.path), data.path, out, "fp16", document_names=True)
    total = data.split("train").num_documents
    text = " ".join(f"topic11word{i}" for i in range(5))
    for path in (run.path, out):
        why = Predictor.load(path).explain(text, GONE)
        best = why.documents[0]
        assert total <= best.document < total + 12
        assert best.has_label
        assert best.name is None


def test_labels_are_added_to_a_model_of_label_texts(run: RunFolder, data: DataSet) -> None:
    examples = LabelExamples(
        ["x"], data.split("test").features.slice(0, 1), Csr.from_lists([[0]], 1), np.array([False])
    )
    model = model_of_run(run.path)
    added = add_labels(model, data, examples).model
    assert added.num_labels == model.num_labels + 1
    assert added.neighbors.labels.num_rows == model.neighbors.labels.num_rows + 1


def test_the_command_takes_names_and_files(
    files: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    command = ["prepare", "text", files[0], str(tmp_path / "data"), "--text", "text"]
    command += ["--labels", "labels", "--label-text", files[1], "--label-names-as-text"]
    assert main(command) == 0
    assert "label texts: 12, of 12 labels, 1 of them without" in capsys.readouterr().out
    row = {"name": "about 3", "words": "common1", "more": "common2"}
    other = write(tmp_path / "own.jsonl", [row])
    command = [*command[:7], "labels", "--label-text", other, "--overwrite"]
    command += ["--label-text-columns", "words,more", "--label-text-label", "name"]
    assert main(command) == 0
    own = DataSet.open(tmp_path / "data").split("label_texts")
    assert own.features.counts.tolist() == [2]
    other = write(tmp_path / "bad.jsonl", [row, {"name": 1.5, "words": "", "more": ""}])
    assert main([one if one != str(tmp_path / "own.jsonl") else other for one in command]) == 1
    assert "bad.jsonl:2: 'name' should be a list" in capsys.readouterr().err


def test_titles_of_the_repositorys_labels(tmp_path: Path) -> None:
    labels = [{"uid": f"L{i}", "title": f"red {i}"} for i in range(3)]
    document = {"uid": "D", "title": "red", "content": "blue red", "target_ind": [1]}
    rows = {"trn": [document] * 3, "tst": [document], "lbl": labels}
    own = [write(tmp_path / f"{name}.json", lines) for name, lines in rows.items()]
    made = prepare_lf(*own, tmp_path / "data", label_texts=LabelTexts(names=True))
    found = DataSet.open(tmp_path / "data").split("label_texts")
    assert found.labels.ids.tolist() == [0, 1, 2]
    assert made.summary["label_texts"]["labels_without_train_documents"] == 2
    with pytest.raises(InputError, match=r"there is no such file|no file"):
        LabelTexts([str(tmp_path / "absent.jsonl")]).check()
