"""From files of texts to a data set, and from texts to labels."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from trained import trained_run

from ray_xml.cli import main
from ray_xml.errors import ConfigError, DataSetError, InputError
from ray_xml.predictor import Predictor
from ray_xml.prepare_lf import prepare_lf
from ray_xml.prepare_text import prepare_text
from ray_xml.row_files import Columns
from ray_xml.store import DataSet
from ray_xml.text import Vectorizer
from ray_xml.words import words

Capture = pytest.CaptureFixture[str]
COLUMNS = Columns(text=("title", "body"), labels="tags", separator=";", id="key")
Record = dict[str, str]


def made(count: int, seed: int = 0) -> list[Record]:
    """Documents whose words tell their labels; some labels are rare."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        labels = sorted(set((rng.zipf(1.5, 2) % 40).tolist()))
        text = [f"Topic{label}" for label in labels] + [f"w{i}" for i in rng.zipf(1.4, 8) % 90]
        tags = ";".join(f"tag {label}" for label in labels)
        body = " ".join(text[1:])
        found.append({"key": f"d{number}", "title": text[0], "body": body, "tags": tags})
    return found


def write_csv(path: Path, records: list[Record]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["key", "title", "body", "tags"])
        writer.writeheader()
        writer.writerows(records)
    return str(path)


def rows_of(data: DataSet, split: str) -> tuple[np.ndarray, list[list[str]]]:
    """Dense features, and the names of each document's labels."""
    part, names = data.split(split), data.label_names()
    assert names is not None
    labels = part.labels
    spans = zip(labels.offsets[:-1], labels.offsets[1:], strict=True)
    return (
        part.features.to_scipy().toarray(),
        [[names[label] for label in labels.ids[low:high]] for low, high in spans],
    )


def test_a_csv_file_becomes_a_data_set(tmp_path: Path, capsys: Capture) -> None:
    train, test = made(300), made(60, seed=1)
    train[5]["tags"], test[3]["tags"], test[4]["body"] = "", "", "?"
    test[4]["title"], test[9]["tags"] = "!", "only in test; tag 1 ;;"
    test[7] = train[7] | {"key": "copy", "body": train[7]["body"].upper()}
    arguments = [
        *("prepare", "text", write_csv(tmp_path / "a.csv", train[:200])),
        *(write_csv(tmp_path / "b.csv", train[200:]), str(tmp_path / "set")),
        *("--test", write_csv(tmp_path / "test.csv", test), "--text", "title,body"),
        *("--labels", "tags", "--label-separator", ";", "--id", "key", "--name", "mine"),
    ]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    data = DataSet.open(tmp_path / "set")
    data.verify()
    assert data.meta.name == "mine"

    # The slow way: scikit-learn on all texts at once.
    def texts(records: list[Record]) -> list[str]:
        return [f"{one['title']}\n{one['body']}" for one in records]

    kept = [one for one in train if one["tags"]]
    reference = TfidfVectorizer(
        tokenizer=words, lowercase=False, token_pattern=None, min_df=2, sublinear_tf=True
    ).fit(texts(kept))
    assert data.feature_names() == [
        name for name in reference.get_feature_names_out() if len(name) > 1
    ]
    features, labels = rows_of(data, "train")
    np.testing.assert_allclose(
        features, reference.transform(texts(kept)).toarray(), rtol=1e-5, atol=1e-7
    )
    assert labels == [sorted(one["tags"].split(";")) for one in kept]
    features, labels = rows_of(data, "test")
    np.testing.assert_allclose(
        features, reference.transform(texts(test)).toarray(), rtol=1e-5, atol=1e-7
    )
    expected = [sorted(one["tags"].split(";")) if one["tags"] else [] for one in test]
    expected[9] = ["only in test", "tag 1"]
    assert labels == expected

    summary = json.loads((tmp_path / "set" / "summary.json").read_text())
    assert "summary.json" in data.meta.files
    assert summary["splits"]["train"]["left_out"] == 1
    told = summary["splits"]["test"]
    assert (told["documents"], told["without_labels"], told["without_features"]) == (60, 1, 1)
    assert (told["texts_also_in_train"], told["repeated_texts"]) == (1, 0)
    assert summary["empty_labels"] == 2 + 2  # of an empty field one, too
    counts = data.split("train").labels.column_counts()
    assert (
        told["labels_not_in_train"]
        == ((counts == 0) & (data.split("test").labels.column_counts() > 0)).sum()
    )
    curve = summary["train_documents_of_a_label"]
    assert curve["of_the_labels"]["0%"] == counts.max()
    assert curve["of_the_labels"]["50%"] == np.sort(counts)[::-1][round((len(counts) - 1) / 2)]
    assert sum(one["documents"] for one in curve["bins"].values()) == counts.sum()
    assert "test: 60 documents" in out
    assert "1 whose text is in train too" in out
    assert "docs/s" in out
    for split, records in (("train", kept), ("test", test)):
        lines = (tmp_path / "set" / f"{split}_documents.jsonl").read_text().splitlines()
        assert [json.loads(line)["name"] for line in lines] == [one["key"] for one in records]


@pytest.mark.parametrize("hash_to", [None, "2^10"])
def test_one_file_is_cut_without_leaks(tmp_path: Path, hash_to: str | None) -> None:
    records = made(500)
    for place in range(0, 500, 10):  # labels of one text each: train takes these back
        records[place]["tags"] += f";only {place}"
    for place in range(100, 160):  # copies, spelt a little differently
        records[place + 200] = records[place] | {"title": records[place]["title"].upper()}
    file = write_csv(tmp_path / "all.csv", records)
    options = ["--text", "title,body", "--labels", "tags", "--label-separator", ";"]
    options += ["--test", "0.2"]
    options += ["--ngrams", "1-2", *(["--hash", hash_to] if hash_to else [])]
    for name, more in (("one", []), ("same", []), ("other", ["--seed", "1"])):
        assert main(["prepare", "text", file, str(tmp_path / name), *options, *more]) == 0
    one, same, other = (DataSet.open(tmp_path / name) for name in ("one", "same", "other"))
    assert one.meta.checksum == same.meta.checksum != other.meta.checksum
    summary = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert summary["labels_without_train_documents"] == 0
    assert summary["splits"]["test"]["texts_also_in_train"] == 0
    assert summary["moved_to_train"] > 0
    both = [one.split(split).num_documents for split in ("train", "test")]
    assert sum(both) == 500
    assert 50 < both[1] < 120
    # Each row has its own text: features made anew from the file are those that are stored.
    lines = (tmp_path / "one" / "test_documents.jsonl").read_text().splitlines()
    places = [int(json.loads(line)["name"].removeprefix("all.csv:")) - 1 for line in lines]
    texts = [f"{records[place]['title']}\n{records[place]['body']}" for place in places]
    rows, stored = Vectorizer.load(one.path).transform(texts), one.split("test").features
    np.testing.assert_array_equal(rows.ids, stored.packed().ids)
    np.testing.assert_array_equal(rows.values, stored.packed().values)
    assert (one.feature_names() is None) == (hash_to is not None)


def test_the_number_of_processes_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_xml.row_files._BLOCK", 2000)
    file = write_csv(tmp_path / "all.csv", made(400))
    found = [
        prepare_text(
            [file], tmp_path / f"{count}", columns=COLUMNS, test=0.2, processes=count, name="x"
        )
        for count in (1, 2)
    ]
    assert found[0].meta == found[1].meta
    assert found[0].documents == 400


def test_faults_found_by_another_process_are_told(tmp_path: Path) -> None:
    records = made(50)
    records[20]["title"] = records[20]["body"] = " "
    file = write_csv(tmp_path / "all.csv", records)
    with pytest.raises(InputError, match=r"all\.csv: row 21: there is no text"):
        prepare_text([file], tmp_path / "set", columns=COLUMNS, processes=2)
    assert not (tmp_path / "set").exists()
    made_of = prepare_text([file], tmp_path / "set", columns=COLUMNS, allow_empty=True)
    assert sum(split["without_features"] for split in made_of.summary["splits"].values()) == 1


def test_what_cannot_be_made_is_told_in_time(tmp_path: Path, capsys: Capture) -> None:
    file = write_csv(tmp_path / "all.csv", made(50))
    base = ["prepare", "text", file, str(tmp_path / "set"), "--text", "title", "--labels", "tags"]
    cut = [*base, "--label-separator", ";"]
    for arguments, message in (
        ([*cut, "--test", "1.5"], "must lie between 0 and 1"),
        ([*cut, "--test", "0.0000001"], "no document is left for test"),
        ([*cut, "--test", str(tmp_path / "none.csv")], "none.csv: there is no such file"),
        (base, "row 1: 'tags' is a text"),
        ([*cut, "--min-documents", "100"], "lower min_df"),
        ([*cut, "--min-documents", "0"], "min_df: Input should be greater"),
        ([*cut, "--ngrams", "3-2"], "runs from 3 to 2"),
        ([*cut, "--hash", "2^8", "--max-features", "5"], "set one"),
        ([*cut, "--processes", "0"], "at least 1"),
    ):
        status = main(arguments)
        err = capsys.readouterr().err
        assert status == 1, arguments
        assert message in err, arguments
        assert not (tmp_path / "set").exists()
    with pytest.raises(ConfigError, match="between"):
        prepare_text([file], tmp_path / "set", columns=COLUMNS, test=0.0)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    with pytest.raises(DataSetError, match="left alone"):
        prepare_text([file], tmp_path / "set", columns=COLUMNS)


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def test_raw_files_of_the_repository_with_label_texts(tmp_path: Path) -> None:
    labels = [{"uid": f"L{i}", "title": f"label\n {i % 3}" if i else ""} for i in range(5)]

    def document(uid: int, title: str, content: str, ids: list[int]) -> dict[str, Any]:
        text = {"uid": f"D{uid}", "title": title, "content": content}
        return {**text, "target_ind": ids, "target_rel": [1.0] * len(ids)}

    train = [document(0, "red", "one red", [3, 0]), document(1, "red", "one", [0])]
    train.append(document(2, "", "", [1]))
    test = [document(3, "one", "", [4]), document(4, "", "", [])]
    files = [
        write_lines(tmp_path / name, lines)
        for name, lines in (("trn.json.gz", train), ("tst.json.gz", test), ("lbl.json.gz", labels))
    ]
    assert main(["prepare", "lf", *map(str, files), str(tmp_path / "set")]) == 0
    data = DataSet.open(tmp_path / "set")
    assert data.label_names() == ["L0", "label 1", "label 2", "label 0", "label 1"]
    assert data.feature_names() == ["one", "red"]
    assert data.split("train").labels.ids.tolist() == [0, 3, 0]
    assert data.split("test").labels.packed().offsets.tolist() == [0, 1, 1]
    names = (tmp_path / "set" / "train_documents.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in names] == ["D0", "D1"]
    # Document 2 of train, without text, is left out; the filter counts it all the same.
    filters = [tmp_path / f"filter_labels_{split}.txt" for split in ("train", "test")]
    filters[0].write_text("1 4\n2 0\n0 3\n")
    filters[1].write_text("1 2\n0 4\n")
    options = ["--filter-train", str(filters[0]), "--filter-test", str(filters[1])]
    assert main(["prepare", "lf", *map(str, files), str(tmp_path / "filtered"), *options]) == 0
    data = DataSet.open(tmp_path / "filtered")
    for split, expected in (("train", [[3], [4]]), ("test", [[4], [2]])):
        found = data.split(split).filtered
        assert found is not None
        rows = np.split(found.ids, found.offsets[1:-1])
        assert [row.tolist() for row in rows] == expected
    for split, rows in (("train", 3), ("test", 2)):
        np.save(tmp_path / f"{split}.npy", np.arange(1, 4 * rows + 1).reshape(rows, 4) / 8)
    options = ["--embeddings", str(tmp_path / "train.npy"), "--no-words"]
    options += ["--test-embeddings", str(tmp_path / "test.npy")]
    assert main(["prepare", "lf", *map(str, files), str(tmp_path / "vectors"), *options]) == 0
    rows = DataSet.open(tmp_path / "vectors").split("train").features.to_scipy().toarray()
    # Document 2 has labels and a vector, so it stays though it has no text.
    np.testing.assert_allclose(rows[2], np.arange(9, 13) / np.linalg.norm(np.arange(9, 13)))
    filters[1].write_text("1 2\n2 4\n")
    with pytest.raises(InputError, match=r"filter_labels_test\.txt:2: document 2: there are 2"):
        prepare_lf(*files, tmp_path / "other", filters={"test": filters[1]})
    with pytest.raises(ConfigError, match="a filter of test"):
        prepare_text(
            [files[0]], tmp_path / "other", columns=Columns(text=("title",), labels="target_ind"),
            filters={"test": filters[1]},
        )  # fmt: skip
    write_lines(files[1], [document(5, "a", "", [5])])
    with pytest.raises(InputError, match=r"gz:1: 'target_ind' holds 5: labels are 0 to 4"):
        prepare_lf(*files, tmp_path / "other")


def test_texts_are_predicted_by_the_models_own_vectoriser(tmp_path: Path, capsys: Capture) -> None:
    file = write_csv(tmp_path / "all.csv", made(400))
    prepare_text([file], tmp_path / "set", columns=COLUMNS)
    run = trained_run(DataSet.open(tmp_path / "set"), tmp_path / "runs").path
    export = tmp_path / "model"
    assert main(["export", str(run), str(export), "--dtype", "fp16"]) == 0
    assert main(["examples", str(run), "--count", "2"]) == 0
    capsys.readouterr()
    new = made(9, seed=5)
    texts = [f"{one['title']}\n{one['body']}" for one in new]
    csv_file = write_csv(tmp_path / "new.csv", new)
    (tmp_path / "new.txt").write_text("".join(text.replace("\n", " ") + "\n" for text in texts))
    given = [[csv_file, "--text", "title,body"], [str(tmp_path / "new.txt"), "--text", "text"]]
    features = Vectorizer.load(tmp_path / "set").transform(texts)
    for model in (run, export):
        expected = Predictor.load(model).predict(features, 3)
        for arguments in given:
            assert main(["predict", str(model), *arguments, "--top-k", "3"]) == 0
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert [line["labels"] for line in lines] == expected.labels.tolist()
            assert lines[0]["names"][0].startswith("tag ")
    # An export needs no data set; a run whose data set was made anew says so.
    prepare_text([file], tmp_path / "set", columns=Columns(("title",), "tags", ";"), overwrite=True)
    assert main(["predict", str(export), *given[0]]) == 0
    assert main(["predict", str(run), *given[0]]) == 1
    assert "the data set was made anew" in capsys.readouterr().err
    assert main(["predict", str(run), csv_file, "--text", "name"]) == 1
    assert "made anew" in capsys.readouterr().err
    assert main(["predict", str(export), csv_file, "--text", "name"]) == 1
    assert "the columns are: key, title, body, tags" in capsys.readouterr().err
    (export / "vectorizer.json").unlink()
    assert main(["predict", str(export), *given[0]]) == 1
    assert "no vectorizer.json" in capsys.readouterr().err
