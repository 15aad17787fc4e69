"""Texts to labels in words, with probabilities and reasons; from a run and from an export."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from worded import calibrated_run, texts

from ray_xml.calibrate import held_out
from ray_xml.calibration import ScoreBins
from ray_xml.cli import main
from ray_xml.config import dump_config
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.explain import log_odds
from ray_xml.model import model_of_run
from ray_xml.model_place import ModelPlace
from ray_xml.predict_documents import DocumentSide
from ray_xml.predict_shard import ModelShard
from ray_xml.predictor import Predictor, Tag
from ray_xml.probability import UNFITTED
from ray_xml.run_data import split_rows
from ray_xml.run_folder import RunFolder
from ray_xml.run_storage import RunStorage
from ray_xml.run_url import local_run
from ray_xml.sparse import Csr
from ray_xml.storage import Storage
from ray_xml.store import DataSet
from ray_xml.text import TextSettings, Vectorizer, buckets

Capture = pytest.CaptureFixture[str]
ASKED = [text for text, _ in texts(1, 40)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with probabilities."""
    return calibrated_run(tmp_path_factory.mktemp("worded"))


@pytest.fixture(scope="module")
def data(run: RunFolder) -> DataSet:
    return DataSet.open(run.config().data)


@pytest.fixture(scope="module")
def exported(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "model"
    assert main(["export", str(run.path), str(out), "--dtype", "fp16", "--documents"]) == 0
    return out


@pytest.fixture(scope="module")
def predictor(exported: Path) -> Predictor:
    return Predictor.load(exported)


@pytest.fixture
def spoilt(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "model"))


def test_texts_get_what_their_features_get(predictor: Predictor, data: DataSet) -> None:
    found = predictor.predict(ASKED, top_k=4)
    rows = predictor.predict(predictor.vectorizer.transform(ASKED), 4)
    names = data.label_names()
    assert names is not None
    for tags, labels, scores in zip(found, rows.labels, rows.scores, strict=True):
        assert [tag.label for tag in tags] == labels[labels >= 0].tolist()
        assert [tag.score for tag in tags] == scores[labels >= 0].tolist()
        assert [tag.name for tag in tags] == [names[tag.label] for tag in tags]
        p = [tag.probability for tag in tags]
        assert p == sorted(p, reverse=True)
    assert found == predictor.tag(ASKED, 4)
    assert len(predictor.predict(ASKED[:1])[0]) == 5


def test_the_labels_are_those_of_the_words(predictor: Predictor) -> None:
    (tags,) = predictor.predict(["topic3word1 topic3word2 common4"], top_k=1)
    assert tags[0].name == "about 3"


def test_one_text_gets_what_it_gets_among_others(predictor: Predictor) -> None:
    """The fast path of a lone document against the path of blocks."""
    together = predictor.predict(ASKED, top_k=5)
    for text, expected in zip(ASKED, together, strict=True):
        (alone,) = predictor.predict([text], top_k=5)
        assert [tag.label for tag in alone] == [tag.label for tag in expected]
        for one, other in zip(alone, expected, strict=True):
            assert one.score == pytest.approx(other.score, abs=2e-6)


def test_threads_share_a_predictor(exported: Path) -> None:
    fresh = Predictor.load(exported)  # so that they meet while it reads names and vectoriser
    expected = [Predictor.load(exported).predict([text])[0] for text in ASKED]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: fresh.predict([text])[0], ASKED * 5))
    assert found == expected * 5


def test_texts_that_say_nothing(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    empty, known = predictor.predict(["", ASKED[0]])
    assert all(isinstance(tag, Tag) for tag in [*empty, *known])
    assert len(known) == 5
    assert predictor.predict(["unheard of"]) == predictor.predict([""])
    with pytest.raises(TypeError, match="are a list"):
        predictor.predict("text")


def test_neither_ray_nor_scikit_learn_is_needed(exported: Path) -> None:
    code = f"""
import sys
from ray_xml.predictor import Predictor
predictor = Predictor.load({str(exported)!r})
text = "topic3word1 topic3word2 common4"
(tags,) = predictor.predict([text], top_k=2)
assert predictor.explain(text, tags[0].label).terms
loaded = {{name.split(".")[0] for name in sys.modules}}
assert not loaded & {{"ray", "sklearn", "pandas"}}, loaded
print(tags[0].name)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "about 3\n", done.stderr


def test_a_run_answers_as_its_export(run: RunFolder, predictor: Predictor) -> None:
    first, second = Predictor.load(run.path).predict(ASKED), predictor.predict(ASKED)
    same = 0
    for ours, theirs in zip(first, second, strict=True):
        same += ours[0].label == theirs[0].label
        assert ours[0].probability == pytest.approx(theirs[0].probability, abs=0.02)
    assert same >= len(ASKED) - 2


def test_without_words_there_is_no_text(predictor: Predictor, spoilt: Path) -> None:
    for name in ("vectorizer.json", "labels.txt"):
        (spoilt / name).unlink()
    bare = Predictor.load(spoilt)
    with pytest.raises(DataSetError, match=r"has no vectorizer\.json"):
        bare.predict(ASKED)
    assert bare.names == predictor.names  # the run's data set is still there
    with pytest.raises(DataSetError, match="load it from its folder"):
        Predictor(predictor.model).predict(ASKED)


# ---- probabilities -----------------------------------------------------------------------------


def test_probabilities_are_those_that_were_fitted(run: RunFolder, predictor: Predictor) -> None:
    tree = json.loads(run.probability_file.read_text())
    assert predictor.model.probability.as_dict() == {
        key: value for key, value in tree.items() if key != "checkpoint"
    }
    (tags,) = predictor.predict([ASKED[0]])
    for tag in tags:
        z = z_of(predictor, ASKED[0], tag.label)
        expected = expit(tree["slope"] * z + tree["offset"])
        assert tag.probability == pytest.approx(expected, abs=1e-6)


def test_they_are_fitted_to_held_out_documents(run: RunFolder, data: DataSet) -> None:
    predictor = Predictor.load(run.path)
    z, right, documents = held_out(predictor, data)
    _, held = split_rows(data, predictor.config)
    assert documents == len(held)
    assert len(z) == len(right) == 5 * len(held)
    bins = ScoreBins()
    bins.add(expit(z.astype(np.float64)), right)
    stored = json.loads(run.probability_file.read_text())
    assert stored["counts"] == bins.count.tolist()
    assert stored["right"] == bins.right.tolist()
    # The truth was looked up for the right labels: most of a document's labels are among its best.
    truth = data.split("train").labels.take(held)
    assert 0.7 * truth.nnz < right.sum() <= truth.nnz


def test_the_halves_are_scored_by_the_other_half(run: RunFolder, data: DataSet) -> None:
    """A document's own truth does not move its score."""
    predictor = Predictor.load(run.path)
    _, held = split_rows(data, predictor.config)
    z, _, _ = held_out(predictor, data)
    train = data.split("train")
    at = held[::2]  # the first half gets other labels

    class Turned:
        path, meta = data.path, data.meta

        @staticmethod
        def split(name: str) -> Any:
            ids = train.labels.ids.copy()
            ids[train.labels.offsets[at]] = 0
            labels = Csr(train.labels.offsets, ids, None, train.labels.num_columns)
            return SimpleNamespace(
                features=train.features,
                labels=labels,
                filtered=None,
                num_documents=train.num_documents,
            )

    turned, _, _ = held_out(predictor, Turned())  # type: ignore[arg-type]
    first = np.arange(len(z)) // 5 % 2 == 0
    assert np.array_equal(z[first], turned[first])
    assert not np.array_equal(z[~first], turned[~first])


def test_calibrating_is_refused_without_documents(run: RunFolder, data: DataSet) -> None:
    predictor = Predictor.load(run.path)
    training = predictor.config.training.model_copy(update={"validation": 0.0})
    config = predictor.config.model_copy(update={"training": training})
    object.__setattr__(predictor.model, "config", config)
    with pytest.raises(DataSetError, match="no validation documents"):
        held_out(predictor, data)


@pytest.mark.parametrize("text", ["{", '{"checkpoint": 3}', "[]", '{"slope": 1}'])
def test_a_damaged_file_of_probabilities_is_told(run: RunFolder, tmp_path: Path, text: str) -> None:
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    copy.probability_file.write_text(text)
    with pytest.raises(CheckpointError, match=r"probability\.json: damaged .*ray-xml calibrate"):
        Predictor.load(copy.path)


def test_those_of_another_checkpoint_are_not_used(
    run: RunFolder, tmp_path: Path, capsys: Capture
) -> None:
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    tree = json.loads(run.probability_file.read_text())
    copy.probability_file.write_text(json.dumps({**tree, "checkpoint": "another"}))
    assert model_of_run(copy.path).probability.counts.sum() == 0
    assert "is of another checkpoint" in capsys.readouterr().err


def test_hostile_probabilities_of_an_export_are_refused(spoilt: Path) -> None:
    manifest = spoilt / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["probability"]["slope"] = -1
    manifest.write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match="damaged"):
        Predictor.load(spoilt)
    del tree["probability"]  # as of older versions
    manifest.write_text(json.dumps(tree))
    (tags,) = Predictor.load(spoilt).predict([ASKED[0]])
    assert [tag.probability for tag in tags] == pytest.approx([tag.score for tag in tags])


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_wanted_precision_cuts_labels_off(
    predictor: Predictor, exported: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "new.txt"
    file.write_text("\n".join(ASKED) + "\n")
    command = ["predict", str(exported), str(file), "--text", "text", "--top-k", "4"]
    assert main(command) == 0
    everything = lines(capsys.readouterr().out)
    assert main([*command, "--precision", "0.8"]) == 0
    cut = lines(capsys.readouterr().out)
    threshold = predictor.model.probability.threshold(0.8)
    assert 0 < threshold < 1
    for whole, some in zip(everything, cut, strict=True):
        kept = [i for i, score in enumerate(whole["scores"]) if score >= threshold]
        for key in ("labels", "scores", "names"):
            assert some[key] == [whole[key][i] for i in kept]
    assert sum(len(one["labels"]) for one in cut) < sum(len(one["labels"]) for one in everything)


# ---- reasons -----------------------------------------------------------------------------------


def z_of(predictor: Predictor, text: str, label: int) -> float:
    """The log-odds of a candidate, as predictions are ordered by."""
    evidence = predictor.evidence(predictor.vectorizer.transform([text]), 12)
    z = predictor.model.blend.log_odds(evidence, predictor.lexical.label_counts)
    (found,) = z[evidence.labels == label]
    return float(found)


def test_contributions_are_what_the_text_loses_without_the_word(predictor: Predictor) -> None:
    text = "topic3word1 topic3word2 topic5word0 common4 common9 common9"
    label = predictor.predict([text], top_k=1)[0][0]
    why = predictor.explain(text, label.label)
    assert (why.label, why.name) == (label.label, label.name)
    assert why.score == pytest.approx(label.score, abs=1e-5)
    assert why.probability == pytest.approx(label.probability, abs=1e-5)
    whole = z_of(predictor, text, label.label)
    assert why.log_odds == pytest.approx(whole, abs=1e-3)
    assert {one.term for one in why.terms} <= set(text.split())
    assert len(why.terms) >= 3
    for one in why.terms:
        rest = " ".join(word for word in text.split() if word != one.term)
        lost = whole - z_of(predictor, rest, label.label)
        assert one.contribution == pytest.approx(lost, abs=2e-3), one.term
    sizes = [abs(one.contribution) for one in why.terms]
    assert sizes == sorted(sizes, reverse=True)
    assert why.terms[0].term.startswith("topic")


def test_any_known_label_has_the_score_that_it_is_predicted_with(predictor: Predictor) -> None:
    rows = predictor.vectorizer.transform(ASKED)
    documents = DocumentSide(predictor.model)
    shard = ModelShard(predictor.model.all_labels())
    everything = predictor.predict(rows, predictor.num_labels)
    for label in range(predictor.num_labels):
        expected = np.where(everything.labels == label, everything.scores, 0).sum(1)
        there = (everything.labels == label).any(1)
        found = expit(log_odds(documents, shard, rows, [label])[:, 0])
        np.testing.assert_allclose(found[there], expected[there], atol=1e-6)


def test_reasons_of_several_labels_at_once_are_those_of_each(predictor: Predictor) -> None:
    text = ASKED[0]
    labels = [tag.label for tag in predictor.tag([text], 5)[0]]
    assert len(labels) == 5
    together = predictor.reasons(text, labels, most=7)
    for label, found in zip(labels, together, strict=True):
        alone = predictor.explain(text, label, most=7).terms
        assert [one.term for one in found] == [one.term for one in alone]
        assert [one.contribution for one in found] == [one.contribution for one in alone]


def test_documents_are_the_most_alike_of_train(
    predictor: Predictor, run: RunFolder, data: DataSet
) -> None:
    train = data.split("train")
    _, held = split_rows(data, predictor.config)
    row = int(np.setdiff1d(np.arange(train.num_documents), held)[17])
    named = [
        json.loads(line)["name"]
        for line in (data.path / "train_documents.jsonl").read_text().splitlines()
    ]
    source = {
        one["key"]: one["text"]
        for one in map(json.loads, (data.path.parent / "all.jsonl").read_text().splitlines())
    }
    text, label = source[named[row]], int(train.labels.slice(row, row + 1).packed().ids[0])
    for answering in (predictor, Predictor.load(run.path)):
        why = answering.explain(text, label)
        assert (why.documents[0].document, why.documents[0].name) == (row, named[row])
        assert why.documents[0].has_label
        assert why.documents[0].similarity == pytest.approx(1, abs=0.01)
        for near in why.documents:
            assert near.document not in held
            theirs = train.labels.slice(near.document, near.document + 1).packed().ids
            assert near.has_label == (label in theirs)
        assert why == answering.explain(text, str(why.name))


def test_what_cannot_be_explained_is_told(predictor: Predictor, spoilt: Path) -> None:
    with pytest.raises(DataSetError, match="label 99: the model has 12 labels"):
        predictor.explain(ASKED[0], 99)
    with pytest.raises(DataSetError, match="'nothing': there is no such label"):
        predictor.explain(ASKED[0], "nothing")
    manifest = spoilt / "manifest.json"
    tree = json.loads(manifest.read_text())
    for total, told in ((None, "does not say"), (7, "documents to train on")):
        manifest.write_text(json.dumps({**tree, "train_documents": total}))
        with pytest.raises(CheckpointError, match=told):
            Predictor.load(spoilt).explain(ASKED[0], 1)
    manifest.write_text(json.dumps(tree))
    names = spoilt / "train_documents.jsonl"
    names.write_text(names.read_text() + "{}\n")
    with pytest.raises(DataSetError, match=r"train_documents\.jsonl"):
        Predictor.load(spoilt).explain(ASKED[0], 1)
    names.unlink()
    why = Predictor.load(spoilt).explain(ASKED[0], 1)
    assert {near.name for near in why.documents} == {None}


def test_the_command_explains_a_few_documents(
    exported: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "new.txt"
    file.write_text("topic3word1 topic3word2 common4\nunheard of\n")
    command = ["predict", str(exported), str(file), "--text", "text", "--explain"]
    assert main([*command, "--top-k", "1"]) == 0
    out = capsys.readouterr().out
    assert "document 0\n  " in out
    assert "about 3\n        terms, in log-odds: topic3word" in out
    assert "doc-" in out
    assert main([*command, "--out", "x.jsonl"]) == 1
    assert "leave out --out" in capsys.readouterr().err
    assert main([*command[:3], "--explain"]) == 1
    assert "give texts" in capsys.readouterr().err
    file.write_text("topic3word1\n" * 101)
    assert main(command) == 1
    assert "more than 100 documents" in capsys.readouterr().err


@pytest.mark.parametrize("by_url", [True, False])
def test_what_is_calibrated_follows_a_run_to_its_storage(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_url: bool
) -> None:
    """Asked for by its URL, or in a run folder whose config names the storage."""
    monkeypatch.setenv("RAY_XML_CACHE", str(tmp_path / "cache"))
    url = (tmp_path / "bucket").as_uri()
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    copy.probability_file.unlink(missing_ok=True)
    config = copy.config()
    resources = config.resources.model_copy(update={"storage": url})
    copy.config_file.write_text(dump_config(config.model_copy(update={"resources": resources})))
    RunStorage(url).push(copy)
    assert Predictor.load(local_run(url)).model.probability is UNFITTED
    assert main(["calibrate", url if by_url else str(copy.path)]) == 0
    expected = Predictor.load(run.path).model.probability.as_dict()
    # Another machine, which has nothing yet; then one that fetched the run before.
    monkeypatch.setenv("RAY_XML_CACHE", str(tmp_path / "other"))
    assert Predictor.load(local_run(url)).model.probability.as_dict() == expected
    assert ModelPlace.find(url).probability().as_dict() == expected
    monkeypatch.setenv("RAY_XML_CACHE", str(tmp_path / "cache"))
    assert Predictor.load(local_run(url)).model.probability.as_dict() == expected
    # A run that is sent again takes it along.
    fresh = (tmp_path / "fresh").as_uri()
    RunStorage(fresh).push(RunFolder(local_run(url)))
    assert "probability.json" in Storage(fresh).sizes()


def test_the_command_calibrates_and_says_what_it_found(
    run: RunFolder, tmp_path: Path, capsys: Capture
) -> None:
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    copy.probability_file.unlink()
    assert main(["predict", str(copy.path), copy.config().data, "--precision", "0.9"]) == 1
    assert "run `ray-xml calibrate RUN`" in capsys.readouterr().err
    assert main(["calibrate", str(copy.path)]) == 0
    assert "5 best predictions of " in capsys.readouterr().out
    assert copy.probability_file.read_text() == run.probability_file.read_text()


def test_terms_that_share_a_hashed_feature_are_named_together() -> None:
    vectorizer = Vectorizer(TextSettings(hash=3, min_df=1), 1, np.ones(3, np.int64), None)
    words = ["one", "two", "three", "four", "five"]
    named = vectorizer.terms(" ".join([*words, "one"]))
    for feature, told in named.items():
        assert told.split(" / ") == [w for w in words if buckets([w], 3)[0] == feature]
    assert sum(len(told.split(" / ")) for told in named.values()) == 5


def test_unknown_precisions_are_wrong_calls(capsys: Capture) -> None:
    for wrong in ("0", "1.5", "nan"):
        with pytest.raises(SystemExit):
            main(["predict", "run", "data", "--precision", wrong])
        assert "at most 1" in capsys.readouterr().err
