"""Vectors of documents as features: from .npy files and columns to predictions and reasons."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trained import run_at
from worded import texts

from ray_xml.cli import main
from ray_xml.embedding import Embedding, EmbeddingFile, fault
from ray_xml.errors import ConfigError, DataSetError, InputError, RayXmlError
from ray_xml.explain import log_odds
from ray_xml.explain_text import explained
from ray_xml.export import export
from ray_xml.lexical_file import load_lexical, save_lexical
from ray_xml.model import model_of_run
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.plan_counts import Counts
from ray_xml.plan_memory import evaluate
from ray_xml.predict_documents import DocumentSide
from ray_xml.predict_shard import ModelShard
from ray_xml.predictor import Predictor
from ray_xml.prepare_text import prepare_text
from ray_xml.row_files import Columns
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.text import Vectorizer

Capture = pytest.CaptureFixture[str]
D, TRAIN, TEST = 24, 240, 40
COLUMNS = Columns(text=("text",), labels="labels", id="key")


def vectors_of(documents: list[tuple[str, list[str]]], seed: int) -> np.ndarray:
    """float32 [n, D]: a direction a label, and noise."""
    directions = np.random.default_rng(9).standard_normal((12, D))
    rng = np.random.default_rng(seed)
    numbers = [[int(label.split()[1]) for label in labels] for _, labels in documents]
    made = [directions[own].sum(0) + 0.3 * rng.standard_normal(D) for own in numbers]
    return (5 * np.array(made)).astype(np.float32)


def write(path: Path, documents: list[tuple[str, list[str]]], vectors: np.ndarray | None) -> None:
    rows = []
    for number, (text, labels) in enumerate(documents):
        row = {"key": f"d{number}", "text": text, "labels": labels}
        if vectors is not None:
            row["vector"] = vectors[number].tolist()
        rows.append(json.dumps(row))
    # An empty line is no document, and moves no vector.
    path.write_text("\n".join(rows[:7]) + "\n\n" + "\n".join(rows[7:]) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with vectors in every form that is read."""
    folder = tmp_path_factory.mktemp("texts")
    for name, seed, count in (("train", 0, TRAIN), ("test", 1, TEST)):
        documents = texts(seed, count)
        vectors = vectors_of(documents, seed)
        write(folder / f"{name}.jsonl", documents, vectors)
        np.save(folder / f"{name}.npy", vectors)
        table = {
            "key": [f"d{number}" for number in range(count)],
            "text": [text for text, _ in documents],
            "labels": [labels for _, labels in documents],
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), D),
        }
        pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=50)
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> DataSet:
    """Words and vectors."""
    arguments = ["prepare", "text", str(folder / "train.jsonl"), str(folder / "both")]
    arguments += ["--test", str(folder / "test.jsonl"), "--text", "text", "--labels", "labels"]
    arguments += ["--id", "key", "--embeddings", str(folder / "train.npy")]
    arguments += ["--test-embeddings", str(folder / "test.npy"), "--embedding-weight", "0.7"]
    assert main(arguments) == 0
    return DataSet.open(folder / "both")


def run_of(data: DataSet, folder: Path) -> RunFolder:
    return run_at(
        data,
        folder,
        parts=2,
        training={"epochs": 4, "batch_size": 32, "cycle_epochs": 1, "validation": 0.2},
        neighbors={"size": 20},
        encoder={"tokens": "svd"},
    )


@pytest.fixture(scope="module")
def run(both: DataSet, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_of(both, tmp_path_factory.mktemp("runs") / "run")


def test_vectors_stand_behind_the_words(folder: Path, both: DataSet) -> None:
    plain = ["prepare", "text", str(folder / "train.jsonl"), str(folder / "plain")]
    plain += ["--test", str(folder / "test.jsonl"), "--text", "text", "--labels", "labels"]
    assert main(plain) == 0
    words = DataSet.open(folder / "plain")
    assert both.meta.embedding == Embedding(columns=D, weight=0.7)
    assert both.meta.num_words == words.meta.num_features == both.meta.num_features - D
    for split in ("train", "test"):
        found = both.split(split).features.to_scipy().toarray()
        given = np.load(folder / f"{split}.npy").astype(np.float64)
        expected = 0.7 * given / np.linalg.norm(given, axis=1, keepdims=True)
        np.testing.assert_allclose(found[:, -D:], expected, rtol=1e-6, atol=1e-8)
        plain_rows = words.split(split).features.to_scipy().toarray()
        np.testing.assert_array_equal(found[:, :-D], plain_rows)
    names = both.feature_names()
    assert names[:-D] == words.feature_names()
    assert names[-D:] == [f"#embedding {number}" for number in range(D)]
    assert "embedding" not in (folder / "plain" / "meta.json").read_text()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_is_as_good_as_a_file(folder: Path, both: DataSet, kind: str) -> None:
    prepare_text(
        [folder / f"train.{kind}"],
        folder / kind,
        columns=Columns(text=("text",), labels="labels", id="key", embedding="vector"),
        test=[folder / f"test.{kind}"],
        embedding_weight=0.7,
        name="both",
    )
    found = DataSet.open(folder / kind)
    for split in ("train", "test"):
        for part in ("features", "labels"):
            mine, theirs = (getattr(data.split(split), part) for data in (found, both))
            assert (mine.to_scipy() != theirs.to_scipy()).nnz == 0


def test_a_drawn_test_split_keeps_vectors_with_their_texts(folder: Path) -> None:
    """By blocks of several processes, too."""
    for processes in (1, 2):
        out = folder / f"drawn{processes}"
        prepare_text(
            [folder / "train.jsonl"], out, columns=COLUMNS, test=0.2, name="drawn",
            embeddings={"train": folder / "train.npy"}, processes=processes,
        )  # fmt: skip
        data, vectors = DataSet.open(out), np.load(folder / "train.npy").astype(np.float64)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        assert data.split("test").num_documents > 20
        for split in ("train", "test"):
            lines = (out / f"{split}_documents.jsonl").read_text().splitlines()
            rows = [int(json.loads(line)["name"][1:]) for line in lines]
            found = data.split(split).features.to_scipy().toarray()[:, -D:]
            np.testing.assert_allclose(found, unit[rows], rtol=1e-6, atol=1e-8)
    assert (folder / "drawn1" / "train.arrow").read_bytes() == (
        folder / "drawn2" / "train.arrow"
    ).read_bytes()


def test_the_sparse_channel_knows_words_alone(folder: Path, both: DataSet) -> None:
    train_split, words = both.split("train"), both.meta.num_words
    config = NeighborsConfig(size=10)
    found = Neighbors.build(config, train_split.features, train_split.labels, words)
    plain = Neighbors.build(config, train_split.features.columns(0, words), train_split.labels)
    assert found.documents.ids.tolist() == plain.documents.ids.tolist()
    np.testing.assert_allclose(found.documents.values, plain.documents.values, rtol=1e-6)
    features = both.split("test").features
    for rows in (features, features.slice(3, 4)):
        mine = found.vote(found.queries(rows))
        theirs = plain.vote(plain.queries(rows.columns(0, words)))
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_allclose(mine.sharp, theirs.sharp, rtol=1e-5)


def test_neighbours_by_vectors_are_the_nearest(folder: Path, both: DataSet) -> None:
    """Against all similarities, sorted; from a file and an export, too."""
    words = both.meta.num_words
    own = [both.split(name).features.columns(words, words + D) for name in ("train", "test")]
    labels = both.split("train").labels
    config = NeighborsConfig(size=7, labels=9)
    index = Neighbors.build(config, own[0], labels, 0)
    dense = [rows.to_scipy().toarray() / 0.7 for rows in own]
    alike = dense[1] @ dense[0].T
    best = np.argsort(-alike, axis=1)[:, :7]
    votes = index.vote(index.queries(own[1]))
    truth = labels.to_scipy().toarray()
    for row in range(TEST):
        found = np.maximum(alike[row, best[row]], 0)
        sharp = (found**4) @ truth[best[row]]
        there = votes.labels[row] >= 0
        np.testing.assert_allclose(
            votes.sharp[row][there], sharp[votes.labels[row][there]], rtol=1e-2, atol=1e-4
        )
        assert votes.sharp_total[row] == pytest.approx((found**4).sum(), rel=1e-2)
        alone = index.vote(index.queries(own[1].slice(row, row + 1)))
        np.testing.assert_allclose(alone.sharp[0], votes.sharp[row], rtol=1e-3, atol=1e-5)
    again = Neighbors.from_tensors(config, index.tensors())
    np.testing.assert_array_equal(again.vote(own[1]).sharp, votes.sharp)
    save_lexical(folder / "dense.safetensors", config, own[0], labels, 0)
    loaded = load_lexical(folder / "dense.safetensors", config)
    np.testing.assert_array_equal(loaded.ask(own[1]).votes.sharp, votes.sharp)
    centroid, association = loaded.ask(own[1]).fits(votes.labels)
    assert not centroid.any()
    assert not association.any()
    # A hostile document: a row without vectors has no neighbours.
    nothing = index.vote(own[1].slice(0, 0).padded(3))
    assert (nothing.labels == -1).all()


def test_predictions_from_texts_and_vectors(
    run: RunFolder, folder: Path, both: DataSet, tmp_path: Path, capsys: Capture
) -> None:
    exported, small = tmp_path / "model", tmp_path / "small"
    export(model_of_run(run.path), both.path, exported, "fp16")
    export(model_of_run(run.path), both.path, small, "int8")
    test = both.split("test").features
    whole, cut = (Predictor.load(one).predict_features(test, 1).labels for one in (run.path, small))
    assert (whole == cut).mean() > 0.9
    given = [text for text, _ in texts(1, TEST)]
    vectors = np.load(folder / "test.npy")
    for place in (run.path, exported):
        predictor = Predictor.load(place)
        expected = predictor.predict(both.split("test").features, 3).labels
        tags = predictor.predict(given, top_k=3, embeddings=vectors)
        assert [[tag.label for tag in row] for row in tags] == expected.tolist()
        half = predictor.predict(given, top_k=3, embeddings=vectors.astype(np.float16))
        same = [a[0].label == b[0].label for a, b in zip(tags, half, strict=True)]
        assert np.mean(same) > 0.9
        for more in (
            [str(folder / "test.jsonl"), "--embeddings", str(folder / "test.npy")],
            [str(folder / "test.jsonl"), "--embedding-column", "vector"],
            [str(folder / "test.parquet"), "--embedding-column", "vector"],
        ):
            arguments = ["predict", str(place), *more, "--text", "text", "--top-k", "3"]
            capsys.readouterr()
            assert main(arguments) == 0
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert [line["labels"] for line in lines] == expected.tolist()


def test_vectors_alone(folder: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "text", str(folder / "train.jsonl"), str(tmp_path / "set")]
    arguments += ["--no-words"]
    arguments += ["--test", str(folder / "test.jsonl"), "--text", "text", "--labels", "labels"]
    arguments += ["--embeddings", str(folder / "train.npy")]
    assert main([*arguments, "--test-embeddings", str(folder / "test.npy")]) == 0
    data = DataSet.open(tmp_path / "set")
    assert (data.meta.num_features, data.meta.num_words) == (D, 0)
    run = run_of(data, tmp_path / "run")
    export(model_of_run(run.path), data.path, tmp_path / "model", "fp16")
    given, truth = [text for text, _ in texts(1, TEST)], [labels for _, labels in texts(1, TEST)]
    vectors = np.load(folder / "test.npy")
    for place in (run.path, tmp_path / "model"):
        predictor = Predictor.load(place)
        tags = predictor.predict(given, top_k=3, embeddings=vectors)
        # Any text will do: only the vectors count.
        assert tags == predictor.predict([""] * TEST, top_k=3, embeddings=vectors)
        right = [row[0].name in own for row, own in zip(tags, truth, strict=True)]
        assert np.mean(right) > 0.8
        why = predictor.explain("", tags[0][0].label, embedding=vectors[0])
        assert [one.term for one in why.terms] == ["embedding"]
        assert why.documents[0].has_label
        assert why.documents[0].similarity > 0.9


def test_plans_know_what_the_sparse_channel_holds(
    run: RunFolder, folder: Path, tmp_path: Path
) -> None:
    """As large as the files that are made, with words and without."""
    prepare_text(
        [folder / "train.jsonl"], tmp_path / "set", columns=COLUMNS, words=False, test=0.1,
        embeddings={"train": folder / "train.npy"},
    )  # fmt: skip
    alone = run_of(DataSet.open(tmp_path / "set"), tmp_path / "run")
    for one in (run, alone):
        config, data = one.config(), DataSet.open(one.config().data)
        counts = Counts.of_data(data).without(config.training.validation)
        resources = config.resources.model_copy(update={"workers": 1, "label_shards": 1})
        config = config.model_copy(update={"resources": resources})
        process = evaluate(config.resolved(data), counts)
        (planned,) = [part for part in process.parts if part.name == "sparse channel's file"]
        assert planned.nbytes == pytest.approx(one.neighbors_file.stat().st_size, rel=0.15)


def test_an_embedding_is_one_reason(
    run: RunFolder, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    predictor = Predictor.load(run.path)
    text, vector = texts(1, TEST)[4][0], np.load(folder / "test.npy")[4]
    tag = predictor.predict([text], top_k=1, embeddings=vector[None])[0][0]
    why = predictor.explain(text, tag.label, most=50, embedding=vector)
    assert [one.term for one in why.terms].count("embedding") == 1
    assert {one.term for one in why.terms} <= {"embedding", *text.split()}
    row = predictor.vectorizer.transform([text], vector[None])
    words = predictor.vectorizer.num_words
    bare = row.to_scipy().tolil()
    bare[0, words:] = 0
    sides = DocumentSide(predictor.model), ModelShard(predictor.model.all_labels())
    without = log_odds(*sides, Csr.from_scipy(bare.tocsr()), [tag.label])[0, 0]
    told = {one.term: one.contribution for one in why.terms}
    assert told["embedding"] == pytest.approx(why.log_odds - without, abs=1e-3)
    lines = list(explained(predictor, text, top_k=1, embedding=vector))
    assert "embedding +" in "\n".join(lines)
    (tmp_path / "one.txt").write_text(f"{text}\n")
    np.save(tmp_path / "one.npy", vector[None])
    command = ["predict", str(run.path), str(tmp_path / "one.txt"), "--text", "text"]
    command += ["--embeddings", str(tmp_path / "one.npy"), "--explain", "--top-k", "1"]
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines() == ["document 0", *lines]


def test_texts_without_their_vectors(run: RunFolder, folder: Path, capsys: Capture) -> None:
    predictor = Predictor.load(run.path)
    good = np.ones((2, D), np.float32)
    for vectors, message in (
        (None, "trained with embeddings: give one of 24 numbers a text"),
        (good[:1], "are float32 [1, 24], not floats [2, 24]"),
        (good[:, 1:], "are float32 [2, 23], not floats [2, 24]"),
        (good.astype(int), "are int64 [2, 24]"),
        (good * np.array([[1], [0]]), "embedding of text 1, from 0: all its numbers are 0"),
        (good * np.array([[np.nan], [1]]), "embedding of text 0, from 0: a number is not finite"),
    ):
        with pytest.raises(DataSetError, match=re.escape(message)):
            predictor.predict(["a", "b"], embeddings=vectors)
    with pytest.raises(TypeError):
        predictor.predict(Csr.from_lists([[0]], 9, [[1.0]]), embeddings=good)
    lone = Vectorizer(predictor.vectorizer.settings, 1, np.ones(1, np.int64), ["a"])
    with pytest.raises(DataSetError, match="without embeddings"):
        lone.transform(["a"], np.ones((1, D)))
    given = str(folder / "test.jsonl")
    for more, message in (
        (["--text", "text"], "trained with embeddings"),
        (["--text", "text", "--embeddings", str(folder / "train.npy")], "240 rows for 40 docu"),
        (["--embeddings", str(folder / "test.npy")], "name their columns with --text"),
    ):
        assert main(["predict", str(run.path), given, *more]) == 1
        assert message in capsys.readouterr().err
    (folder / "new.jsonl").write_text('{"text": "red", "labels": ["new"]}\n', encoding="utf-8")
    adding = ["add-labels", str(run.path), str(folder / "new.jsonl"), str(folder / "more")]
    assert main([*adding, "--text", "text", "--labels", "labels"]) == 1
    assert "trained with embeddings" in capsys.readouterr().err
    assert not (folder / "more").exists()


def spoilt(vectors: np.ndarray, row: int, value: float) -> np.ndarray:
    vectors = vectors.copy()
    vectors[row] = value
    return vectors


def test_faulty_files(folder: Path, tmp_path: Path) -> None:
    good = np.load(folder / "train.npy")
    cases = {
        "is no plain .npy array": b"nothing",
        "not float16 or float32 [documents": good[:, 0],
        "it holds int64 [240, 24]": good.astype(int),
        "Python objects|pickle|object": np.array([["a", None]], object),
        "it has 239 rows for 240 documents": good[:-1],
        "row 17, counted from 0: all its numbers are 0": spoilt(good, 17, 0),
        "row 200, counted from 0: a number is not finite": spoilt(good, 200, np.inf),
    }
    for message, content in cases.items():
        path = tmp_path / "bad.npy"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content, allow_pickle=True)
        with pytest.raises(InputError, match=message if "|" in message else re.escape(message)):
            prepare_text(
                [folder / "train.jsonl"], tmp_path / "set", columns=COLUMNS,
                embeddings={"train": path},
            )  # fmt: skip
        assert not (tmp_path / "set").exists()
    np.save(tmp_path / "narrow.npy", np.load(folder / "test.npy")[:, 1:])
    common = {"columns": COLUMNS, "test": [folder / "test.jsonl"]}
    for embeddings, error in (
        ({"test": tmp_path / "narrow.npy"}, "its vectors have 23 numbers, 24 are needed"),
        ({"test": tmp_path / "none.npy"}, "there is no such file"),
        ({}, "each split needs its own"),
    ):
        given = {"train": folder / "train.npy", **embeddings}
        with pytest.raises(RayXmlError, match=error):
            prepare_text([folder / "train.jsonl"], tmp_path / "set", embeddings=given, **common)
    with pytest.raises(ConfigError, match="need embeddings"):
        prepare_text([folder / "train.jsonl"], tmp_path / "set", words=False, **common)
    with pytest.raises(ConfigError, match="weight"):
        prepare_text(
            [folder / "train.jsonl"], tmp_path / "set", columns=COLUMNS, embedding_weight=0,
            embeddings={"train": folder / "train.npy"},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ("[1, 2]", "'vector' has 2 numbers, not 3 as those before"),
        ("[]", "'vector' has 0 numbers"),
        ("null", "should be a list of numbers"),
        ('["a", "b", "c"]', "should be a list of numbers"),
        ("[1, [2], 3]", "should be a list of numbers"),
        ("[1, null, 3]", "should be a list of numbers"),
        ("[true, false, true]", "should be a list of numbers"),
        ("[0, 0, 0]", "'vector': all its numbers are 0"),
        ("[1e300, 0, 0]", "'vector': a number is not finite"),
        ('{"a": 1}', "should be a list of numbers"),
    ],
)
def test_faulty_columns(tmp_path: Path, vector: str, message: str) -> None:
    row = '{{"text": "some words", "labels": ["x"], "vector": {}}}\n'
    (tmp_path / "a.jsonl").write_text(row.format("[1, 2.5, 3]") * 2 + row.format(vector))
    columns = Columns(text=("text",), labels="labels", embedding="vector")
    with pytest.raises(InputError, match=r"a\.jsonl:3: .*" + re.escape(message)):
        prepare_text([tmp_path / "a.jsonl"], tmp_path / "set", columns=columns)


def test_faulty_parquet_columns(tmp_path: Path) -> None:
    columns = Columns(text=("text",), labels="labels", embedding="vector")

    def told(vectors: pa.Array) -> str:
        texts = {"text": ["a b", "c d"], "labels": [["x"], ["y"]], "vector": vectors}
        pq.write_table(pa.table(texts), tmp_path / "a.parquet")
        with pytest.raises(InputError) as error:
            prepare_text([tmp_path / "a.parquet"], tmp_path / "set", columns=columns)
        return str(error.value)

    assert "row 2: 'vector' has 1 numbers, not 2" in told(pa.array([[1.0, 2.0], [1.0]]))
    assert "row 2: 'vector' should be a list" in told(pa.array([[1.0, 2.0], None]))
    assert "row 1: 'vector' should be a list" in told(pa.array([[1.0, None], [1.0, 2.0]]))
    assert "row 2: 'vector': a number is not" in told(pa.array([[1.0, 2.0], [1.0, np.nan]]))
    assert "int64>, not lists of floats: name another" in told(pa.array([[1], [2]]))
    (tmp_path / "a.csv").write_text("text,labels,vector\na,b,c\n")
    with pytest.raises(InputError, match="which CSV has none of"):
        prepare_text([tmp_path / "a.csv"], tmp_path / "set", columns=columns)


def test_blocks_of_different_widths(tmp_path: Path) -> None:
    """Within a file's later block, and in the next file."""
    row = '{{"text": "some words", "labels": ["x"], "vector": {}}}\n'
    (tmp_path / "a.jsonl").write_text(row.format("[1, 2, 3]"))
    (tmp_path / "b.jsonl").write_text(row.format("[1, 2]"))
    columns = Columns(text=("text",), labels="labels", embedding="vector")
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    with pytest.raises(InputError, match=r"b\.jsonl: row 1: the embedding has 2 numbers, not 3"):
        prepare_text(files, tmp_path / "set", columns=columns)


def test_faults_are_found_in_the_first_row_that_has_one() -> None:
    vectors = np.ones((5, 3), np.float16)
    assert fault(vectors) is None
    assert fault(vectors[:0]) is None
    vectors[3] = 0
    assert fault(vectors) == (3, "all its numbers are 0")
    vectors[2, 1] = np.inf
    assert fault(vectors) == (2, "a number is not finite")


def test_a_file_is_mapped_and_its_rows_are_checked_when_taken(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.float16).reshape(4, 3))
    file = EmbeddingFile(tmp_path / "a.npy")
    assert (file.rows, file.columns) == (4, 3)
    assert file.take(np.array([3, 1])).tolist() == [[9, 10, 11], [3, 4, 5]]
    with pytest.raises(InputError, match="4 rows, and there are more documents"):
        file.take(np.array([4]))


def test_a_damaged_vectoriser(both: DataSet, tmp_path: Path) -> None:
    vectorizer = Vectorizer.load(both.path)
    assert vectorizer.embedding == both.meta.embedding
    vectorizer.save(tmp_path)
    assert Vectorizer.load(tmp_path).num_features == both.meta.num_features
    text = (tmp_path / "vectorizer.json").read_text()
    for wrong in ('"columns": 0', '"columns": 99999999', '"columns": "x"', '"columns": 23'):
        (tmp_path / "vectorizer.json").write_text(text.replace('"columns": 24', wrong))
        with pytest.raises(DataSetError, match="damaged"):
            Vectorizer.load(tmp_path)
