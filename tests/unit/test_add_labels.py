"""Labels added to a trained model, by the command and in Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from worded import texts, worded_run

from ray_xml.add_labels import add_labels, shapes_of
from ray_xml.added_labels import AddedLabels, from_list
from ray_xml.blend import DEFAULT
from ray_xml.cli import main
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.export import load_documents, load_export, load_range
from ray_xml.known_labels import Drawn, KnownLabels, Shape
from ray_xml.label_examples import LabelExamples
from ray_xml.label_trial import trial
from ray_xml.lexical import Lexical
from ray_xml.model import Model, model_of_run
from ray_xml.neighbors import Neighbors
from ray_xml.new_labels import NewLabels, with_labels, without_labels
from ray_xml.predictor import Predictor
from ray_xml.run_data import split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr, stacked
from ray_xml.store import DataSet

NEW = "about 11"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that never met the label."""
    return worded_run(tmp_path_factory.mktemp("lacking"), without=NEW)


@pytest.fixture(scope="module")
def model(run: RunFolder) -> Model:
    return model_of_run(run.path)


@pytest.fixture(scope="module")
def data(run: RunFolder) -> DataSet:
    return DataSet.open(run.config().data)


@pytest.fixture(scope="module")
def known(run: RunFolder, data: DataSet) -> KnownLabels:
    rows, _ = split_rows(data, run.config())
    train = data.split("train")
    names = Predictor.load(run.path).vectorizer.transform(data.label_names() or [])
    return KnownLabels(train.features.take(rows), train.labels.take(rows), names)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("new") / "new.jsonl"
    own = [text for text, labels in texts(2, 60) if NEW in labels][:6]
    path.write_text("".join(json.dumps({"label": NEW, "text": text}) + "\n" for text in own))
    return path


@pytest.fixture(scope="module")
def made(run: RunFolder, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("added") / "model"
    assert main(["add-labels", str(run.path), str(file), str(out), "--text", "text"]) == 0
    return out


def test_the_label_is_found_in_documents_that_have_it(made: Path, run: RunFolder) -> None:
    before, after = Predictor.load(run.path), Predictor.load(made)
    assert after.names == [*(before.names or []), NEW]
    asked = texts(3, 200)
    hits = other = 0
    for (_, labels), tags in zip(asked, after.predict([text for text, _ in asked]), strict=True):
        listed = NEW in [tag.name for tag in tags[: len(labels)]]
        hits += listed and NEW in labels
        other += listed and NEW not in labels
    have = sum(NEW in labels for _, labels in asked)
    assert have > 15
    assert hits >= 0.6 * have
    assert other <= 0.1 * len(asked)


def test_documents_without_the_label_keep_their_best(made: Path, run: RunFolder) -> None:
    before, after = Predictor.load(run.path), Predictor.load(made)
    asked = [text for text, labels in texts(3, 200) if NEW not in labels]
    same = 0
    for old, new in zip(before.predict(asked), after.predict(asked), strict=True):
        same += old[0].name == new[0].name
    assert same >= 0.95 * len(asked)


def test_the_command_tells_what_to_expect(
    run: RunFolder, file: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["add-labels", str(run.path), str(file), str(tmp_path / "out"), "--text", "text"]
    assert main([*command, "--dtype", "fp16"]) == 0
    told = capsys.readouterr().out
    assert f"1 labels added to {11:,} by 6 documents" in told
    assert "R@5" in told
    assert "P@1" in told
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_label_may_come_with_its_name_alone(
    run: RunFolder, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "new.csv").write_text("label\ntopic11word0 topic11word3\n")
    out = tmp_path / "model"
    assert main(["add-labels", str(run.path), str(tmp_path / "new.csv"), str(out)]) == 1
    # No name of a known label has words that documents have, so there is nothing to learn from.
    assert "no label of the model" in capsys.readouterr().err


def test_labels_are_added_to_an_export_again(made: Path, tmp_path: Path, capsys: Capture) -> None:
    again = tmp_path / "again.jsonl"
    again.write_text(json.dumps({"label": "few words", "text": "common1 common2 common3"}) + "\n")
    out = tmp_path / "model"
    assert main(["add-labels", str(made), str(again), str(out), "--text", "text"]) == 0
    model = load_export(out)
    assert [one.first for one in model.added] == [11, 12]
    assert [one.documents for one in model.added] == [6, 1]
    assert Predictor.load(out).names == [*(Predictor.load(made).names or []), "few words"]
    first, second = load_export(made), model
    assert first.added[0].blend.as_dict() == second.added[0].blend.as_dict()
    capsys.readouterr()
    assert main(["add-labels", str(out), str(again), str(tmp_path / "x"), "--text", "text"]) == 1
    assert "again.jsonl:1: the model has a label 'few words'" in capsys.readouterr().err


def test_the_two_sides_of_the_model_answer_as_the_whole(made: Path) -> None:
    whole, documents = load_export(made), load_documents(made)
    assert [one.as_dict() for one in documents.added] == [one.as_dict() for one in whole.added]
    parts = [load_range(made, number, 2).labels for number in range(2)]
    assert np.concatenate(parts).tolist() == whole.labels.tolist()
    assert whole.labels[-1] == 11


def test_reasons_name_the_examples(made: Path, file: Path) -> None:
    predictor = Predictor.load(made)
    text = json.loads(file.read_text().splitlines()[0])["text"]
    why = predictor.explain(text, NEW)
    total = DataSet.open(predictor.config.data).split("train").num_documents
    assert why.documents[0].document == total  # the first document behind those of train
    assert why.documents[0].has_label
    (tags,) = predictor.predict([text])
    assert next(tag.score for tag in tags if tag.name == NEW) == pytest.approx(why.score, abs=1e-5)


# ---- the parts -----------------------------------------------------------------------------------


def test_what_is_taken_out_and_put_back_whole_is_the_same(model: Model, run: RunFolder) -> None:
    """Taking a label out leaves everything but it; all its documents and its own proxy and row
    bring all back but for its documents' votes, which are doubled."""
    gone = np.array([3, 7])
    lacking = without_labels(model, gone)
    assert set(model.labels) - set(lacking.labels) == {3, 7}
    assert lacking.lexical.label_counts[gone].tolist() == [0, 0]
    others = np.setdiff1d(model.labels, gone)
    assert np.array_equal(lacking.lexical.label_counts[others], model.lexical.label_counts[others])
    assert np.array_equal(lacking.rows, model.rows[np.isin(model.labels, others)])
    members = model.neighbors.labels.to_scipy()[:, gone]
    rows = np.flatnonzero(np.asarray(members.sum(1)).ravel())
    drawn = Drawn(
        DataSet.open(run.config().data).split("train").features.take(rows),
        Csr.from_scipy(members[rows], binary=True),
    )
    places = np.searchsorted(model.labels, gone)
    back = with_labels(lacking, drawn, model.proxies[places], model.rows[places], DEFAULT)
    assert back.num_labels == model.num_labels + 2
    assert back.lexical.label_counts[-2:].tolist() == model.lexical.label_counts[gone].tolist()
    assert np.array_equal(back.rows[-2:], model.rows[places])


def test_added_documents_are_indexed_as_those_of_training(model: Model, data: DataSet) -> None:
    """Against an index made of all documents together."""
    some = data.split("test").features.slice(0, 4)
    labels = Csr.from_lists([[0], [1], [0, 1], [1]], 2)
    dim = model.proxies.shape[1]
    added = with_labels(
        model, Drawn(some, labels), np.ones((2, dim)), np.ones((2, dim + 1)), DEFAULT
    )
    rows, _ = split_rows(data, model.config)
    train = data.split("train")
    known = train.labels.take(rows)
    truth = [row.ids.tolist() for row in (known.slice(i, i + 1).packed() for i in range(len(rows)))]
    truth += [[model.num_labels + one for one in own] for own in ([0], [1], [0, 1], [1])]
    expected = Lexical.build(
        Neighbors.build(
            model.neighbors.config,
            stacked([train.features.take(rows), some.packed()], data.meta.num_features),
            Csr.from_lists(truth, model.num_labels + 2),
        )
    )
    ours, theirs = (one.neighbors.tensors() for one in (added.lexical, expected))
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name


def test_each_label_has_the_score_of_its_time(model: Model, data: DataSet) -> None:
    evidence = Predictor(model).evidence(data.split("test").features)
    weights = DEFAULT.weights.copy()
    weights[0] = -2.5
    other = replace(DEFAULT, weights=weights)
    groups = (AddedLabels(4, 0, DEFAULT), AddedLabels(9, 0, other))
    z = replace(model, added=groups).log_odds(evidence)
    counts = model.lexical.label_counts
    own = [one.log_odds(evidence, counts) for one in (model.blend, DEFAULT, other)]
    which = np.digitize(evidence.labels, [4, 9])
    there = evidence.labels >= 0
    assert np.array_equal(z[there], np.choose(which, own)[there])
    assert len(np.unique(which[there])) == 3


def test_shapes_count_documents_and_names() -> None:
    labels = Csr.from_lists([[0], [0, 1], [2], [1]], 3)
    features = Csr.from_lists([[0]] * 4, 2, [[1.0]] * 4)
    found = LabelExamples(["a", "b", "c"], features, labels, np.array([False, False, True, True]))
    assert shapes_of(found) == [Shape(2, False), Shape(1, True), Shape(0, True)]


def test_labels_are_drawn_in_their_shapes(known: KnownLabels, data: DataSet) -> None:
    rng = np.random.default_rng(0)
    among = np.arange(11)
    able, shape = known.able(Shape(10_000, False), among)
    assert shape.documents <= 32
    assert len(able) == 11
    shapes = [Shape(2, False), Shape(3, False)]
    drawn = known.draw(np.array([5, 2]), shapes, rng)
    assert drawn.labels.column_counts().tolist() == [2, 3]
    train = data.split("train")
    for at, label in enumerate([5, 5, 2, 2, 2]):
        row = drawn.features.slice(at, at + 1).packed()
        found = [
            number
            for number in range(train.num_documents)
            if train.features.slice(number, number + 1).packed().ids.tolist() == row.ids.tolist()
        ]
        assert any(label in train.labels.slice(n, n + 1).packed().ids for n in found)


def test_nothing_to_learn_from_is_told(model: Model, known: KnownLabels, data: DataSet) -> None:
    nothing = np.zeros(0, np.int64)
    with pytest.raises(DataSetError, match="no label of the model has documents, so"):
        known.able(Shape(3, False), nothing)
    lacking = without_labels(model, np.arange(1, 11))
    some = data.split("test")
    rng = np.random.default_rng(0)
    with pytest.raises(DataSetError, match="too few labels"):
        trial(lacking, known, [Shape(1, False)], some.features, some.labels, rng)
    none = Csr.from_lists([[]] * some.num_documents, some.labels.num_columns)
    with pytest.raises(DataSetError, match="no validation document has a label"):
        trial(model, known, [Shape(1, False)], some.features, none, rng)


def test_the_trial_measures_held_out_documents(
    model: Model, known: KnownLabels, data: DataSet
) -> None:
    """Labels that documents tell are found again; where labels are mixed up they are not."""
    _, held = split_rows(data, model.config)
    train = data.split("train")
    features, labels = train.features.take(held), train.labels.take(held)
    good = trial(model, known, [Shape(6, False)], features, labels, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    wrong = Csr(labels.offsets, rng.permutation(labels.ids), None, labels.num_columns)
    bad = trial(model, known, [Shape(6, False)], features, wrong, np.random.default_rng(1))
    for outcome in (good.outcome, bad.outcome):
        assert outcome.pairs > 20
        assert outcome.labels == 5
        assert outcome.documents == 5 * len(held)
        assert outcome.found <= min(outcome.told, outcome.pairs)
    # There are but eleven labels, so the five best tell less than the first.
    assert good.outcome.recall > 80
    assert good.outcome.precision_at(1, "without") < 98 < good.outcome.precision_at(1, "with")
    assert bad.outcome.precision_at(1, "with") < 30


def test_proxies_and_rows_point_to_the_documents(model: Model, known: KnownLabels) -> None:
    rng = np.random.default_rng(0)
    shapes = [Shape(5, False)] * 11
    drawn = known.draw(np.arange(11), shapes, rng)
    proxies, rows = NewLabels(model, known, np.arange(11), shapes, rng).of(drawn, shapes)
    near = proxies @ model.proxies.astype(np.float32).T
    assert (near.argmax(1) == np.arange(11)).mean() > 0.8
    assert rows.shape == model.rows.shape


def test_another_data_set_is_refused(model: Model, data: DataSet) -> None:
    examples = LabelExamples(
        ["x"], data.split("test").features.slice(0, 1), Csr.from_lists([[0]], 1), np.array([False])
    )
    other = replace(model, lexical=without_labels(model, np.array([0])).lexical)
    assert add_labels(other, data, examples).model.num_labels == 12
    training = model.config.training.model_copy(update={"validation": 0.1})
    config = model.config.model_copy(update={"training": training})
    with pytest.raises(DataSetError, match="give that which it was trained on"):
        add_labels(replace(model, config=config), data, examples)


def test_hostile_added_labels_are_refused(made: Path, tmp_path: Path) -> None:
    tree = AddedLabels(3, 1, DEFAULT).as_dict()
    assert from_list([tree])[0].first == 3
    with pytest.raises(ValueError, match="follow each other"):
        from_list([tree, tree])
    manifest = made / "manifest.json"
    text = manifest.read_text()
    try:
        for spoilt in ([{"first": -1}], [3], {"first": 3}, [{**tree, "first": "3"}]):
            manifest.write_text(json.dumps({**json.loads(text), "added": spoilt}))
            with pytest.raises(CheckpointError, match="damaged"):
                load_export(made)
    finally:
        manifest.write_text(text)
