"""Exported models: as good as the run, small, whole or not there, and damage is named."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import make_config, train
from small_sets import assert_same
from trained import SOURCES, trained_run

from ray_xml import compact_file, export
from ray_xml.cli import main
from ray_xml.errors import CheckpointError, ConfigError, ExportError
from ray_xml.evaluation import METRICS, evaluate
from ray_xml.export import is_export, load_export
from ray_xml.lexical import Lexical
from ray_xml.model import Model, model_of_run
from ray_xml.predictor import Predictor
from ray_xml.quantise import Dtype
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet

Capture = pytest.CaptureFixture[str]
both = pytest.mark.parametrize("dtype", ["fp16", "int8"])


@pytest.fixture(scope="module")
def runs(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return {source: trained_run(data, folder, source) for source in SOURCES}


@pytest.fixture(scope="module")
def model(runs: dict[str, RunFolder]) -> Model:
    return model_of_run(runs["proxy"].path)


@pytest.fixture(scope="module")
def exported(model: Model, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "model"
    export.export(model, data.path, out, "int8")
    return out


@pytest.fixture
def spoilt(exported: Path, tmp_path: Path) -> Path:
    """An export to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


@both
@pytest.mark.parametrize("source", SOURCES)
def test_it_predicts_as_the_run_does(
    runs: dict[str, RunFolder], data: DataSet, tmp_path: Path, source: str, dtype: Dtype
) -> None:
    run, out = runs[source], tmp_path / "deep" / "model"
    size = export.export(model_of_run(run.path), data.path, out, dtype)
    assert size == sum(file.stat().st_size for file in out.iterdir())
    assert size < 0.5 * sum(file.stat().st_size for file in run.model().iterdir())
    before, after = Predictor.load(run.path), Predictor.load(out)
    assert after.config == before.config
    assert after.model.epoch == before.model.epoch
    assert (after.num_features, after.num_labels) == (300, 80)
    features = data.split("test").features
    one, other = before.predict(features, 5), after.predict(features, 5)
    exact = {"fp16": 0.99, "int8": 0.96}[dtype]
    assert (one.labels == other.labels).mean() > exact
    same = one.labels == other.labels
    # Rounding may trade the last neighbour for another, as it trades near-equal labels.
    worst = {"fp16": 0.05, "int8": 0.25}[dtype]
    assert np.abs(one.scores - other.scores)[same].max() < worst
    assert np.abs(one.scores - other.scores)[same].mean() < worst / 20
    results = [evaluate(predictor, data, "test") for predictor in (before, after)]
    for key in METRICS:
        assert results[0][key] == pytest.approx(results[1][key], abs=1.0), key


@both
def test_what_is_written_and_read_back(
    model: Model, data: DataSet, tmp_path: Path, dtype: Dtype
) -> None:
    export.export(model, data.path, tmp_path / "model", dtype)
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"manifest.json", "config.yaml", "model.safetensors"}
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    assert (manifest["kind"], manifest["dtype"]) == ("ray_xml exported model", dtype)
    again = load_export(tmp_path / "model")
    assert np.array_equal(again.labels, model.labels)
    assert again.labels.dtype == np.int32
    assert np.array_equal(again.bias, model.bias)
    assert again.blend.as_dict() == model.blend.as_dict()
    assert_same(again.neighbors.labels, model.neighbors.labels)
    assert np.array_equal(again.neighbors.documents.ids, model.neighbors.documents.ids)
    steps = {"fp16": 2**-11, "int8": 1 / 254}[dtype] * 1.01
    for name in ("table", "proxies", "rows"):
        ours, theirs = getattr(again, name), getattr(model, name)
        assert ours.dtype == np.float32
        peaks = np.abs(theirs).max(1, keepdims=True)
        assert (np.abs(ours - theirs) <= steps * peaks + 1e-7).all(), name
    np.testing.assert_allclose(again.weight, model.weight, rtol=2**-11, atol=1e-7)


def test_idf_weights_go_along(data: DataSet, tmp_path: Path) -> None:
    train(data, make_config(neighbors={"idf": "on"}), tmp_path / "run")
    model = model_of_run(tmp_path / "run")
    assert model.neighbors.weights is not None
    export.export(model, data.path, tmp_path / "model", "fp16")
    again = Predictor.load(tmp_path / "model")
    assert again.model.neighbors.weights is not None
    np.testing.assert_allclose(again.model.neighbors.weights, model.neighbors.weights, rtol=2**-11)
    features = data.split("test").features
    labels = [Predictor(one).predict(features).labels for one in (model, again.model)]
    assert (labels[0] == labels[1]).mean() > 0.99


@pytest.mark.parametrize(
    "sections",
    [{"neighbors": {"size": 0}}, {"shortlist": {"size": 0}, "classifier": {"negatives": "random"}}],
)
def test_models_without_a_channel(
    data: DataSet, tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    train(data, make_config(**sections), tmp_path / "run")
    export.export(model_of_run(tmp_path / "run"), data.path, tmp_path / "model", "fp16")
    features = data.split("test").features
    labels = [Predictor.load(tmp_path / one).predict(features).labels for one in ("run", "model")]
    assert (labels[0] == labels[1]).mean() > 0.95


def test_an_export_of_an_export(exported: Path, data: DataSet, tmp_path: Path) -> None:
    export.export(load_export(exported), data.path, tmp_path / "again", "int8")
    features = data.split("test").features
    labels = [
        Predictor.load(one).predict(features).labels for one in (exported, tmp_path / "again")
    ]
    assert (labels[0] == labels[1]).mean() > 0.98


# ---- nothing is lost, nothing is left ----


@pytest.mark.parametrize("there", ["file", "folder", "export"])
def test_what_exists_is_not_touched(
    model: Model, data: DataSet, tmp_path: Path, there: str
) -> None:
    out = tmp_path / "model"
    if there == "file":
        out.write_text("thesis")
    else:
        out.mkdir()
        (out / ("model.safetensors" if there == "export" else "thesis")).write_text("thesis")
    with pytest.raises(ConfigError, match=f"{out} exists already; choose a new folder"):
        export.export(model, data.path, out, "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (out if there == "file" else next(out.iterdir())).read_text() == "thesis"


def with_entry(name: str, value: float) -> Callable[[Model], Model]:
    def changed(model: Model) -> Model:
        array = getattr(model, name).copy()
        array.reshape(-1)[7] = value
        return replace(model, **{name: array})

    return changed


def with_similarity(model: Model) -> Model:
    neighbors = model.neighbors
    values = neighbors.documents.values
    assert values is not None
    values = values.copy()
    values[3] = np.nan
    documents = Csr(neighbors.documents.offsets, neighbors.documents.ids, values, 300)
    made = type(neighbors).of_documents(neighbors.config, documents, neighbors.labels, None)
    return replace(model, lexical=Lexical(made, model.lexical.words))


@both
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["table", "weight", "bias", "proxies", "rows"])
def test_numbers_that_are_not_finite_are_refused(
    model: Model, data: DataSet, tmp_path: Path, name: str, value: float, dtype: Dtype
) -> None:
    with pytest.raises(ExportError, match=rf"^{name}: row \d+ holds a NaN or an infinity"):
        export.export(with_entry(name, value)(model), data.path, tmp_path / "model", dtype)
    assert list(tmp_path.iterdir()) == []


def test_other_numbers_that_cannot_be_kept_are_refused(
    model: Model, data: DataSet, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"^documents: row \d+ holds a NaN"):
        export.export(with_similarity(model), data.path, tmp_path / "model", "int8")
    large = with_entry("rows", 1e5)(model)
    with pytest.raises(ExportError, match=r"^rows: row 0 holds 1e\+05.*export as int8"):
        export.export(large, data.path, tmp_path / "model", "fp16")
    assert list(tmp_path.iterdir()) == []
    export.export(large, data.path, tmp_path / "model", "int8")
    assert load_export(tmp_path / "model").rows.reshape(-1)[7] == pytest.approx(1e5, rel=1e-3)


@pytest.mark.parametrize("where", ["save", "write_json", "dump_config", "os.replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(
    model: Model,
    data: DataSet,
    tmp_path: Path,
    where: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(f"ray_xml.export.{where}", fail)
        with pytest.raises(type(error)):
            export.export(model, data.path, tmp_path / "model", "int8")
    assert list(tmp_path.iterdir()) == []
    export.export(model, data.path, tmp_path / "model", "int8")  # and the way is free


# ---- what is told of a damaged one ----


def test_only_an_export_is_taken_for_one(runs: dict[str, RunFolder], exported: Path) -> None:
    run = runs["proxy"]
    assert is_export(exported)
    for other in (run.path, run.model(), run.checkpoints, exported.parent, exported / "none"):
        assert not is_export(other)


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise", "folder"])
def test_a_damaged_file_is_named(spoilt: Path, name: str, damage: str) -> None:
    path = spoilt / name
    raw = path.read_bytes()
    if damage in ("missing", "folder"):
        path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "empty":
        path.write_bytes(b"" if name != "config.yaml" else b"- a list")
    elif damage == "cut":
        path.write_bytes(raw[: len(raw) // 2] if name != "config.yaml" else b"encoder: {dim: ")
    elif damage == "noise":
        path.write_bytes(os.urandom(200))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        Predictor.load(spoilt)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format_version", 2, "of format version 2, this ray_xml reads 1; use the version"),
        ("format_version", "1", "of format version 1, this"),
        ("kind", "a cake", "a cake of format version 1"),
        ("epoch", "last", "damaged"),
        ("blend", {"logit": 1.0}, "damaged"),
        ("blend", None, "damaged"),
        ("num_labels", None, "damaged"),
    ],
)
def test_a_damaged_manifest_is_told(spoilt: Path, key: str, value: Any, message: str) -> None:
    path = spoilt / "manifest.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, key: value}))
    with pytest.raises(CheckpointError, match=rf"manifest\.json: .*{message}"):
        Predictor.load(spoilt)
    del tree[key]
    path.write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match=rf"manifest\.json: damaged.*{key}"):
        Predictor.load(spoilt)


ARRAYS = ["bias", "table.int8", "table.scale", "weight.fp16", "rows.int8", "proxies.scale"]
ARRAYS += ["documents.counts", "documents.steps", "documents.values", "documents.scale"]
ARRAYS += ["documents.num_columns", "document_labels.counts", "document_labels.steps"]


@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_array_is_named(spoilt: Path, name: str) -> None:
    file = spoilt / "model.safetensors"
    arrays = compact_file.load(file)
    said = rf"model\.safetensors: damaged.*{re.escape(name.split('.')[0])}"
    # A 0/1 matrix has no values, so without them the documents would be one.
    changes: list[dict[str, np.ndarray]] = [{key: arrays[key] for key in arrays if key != name}]
    if name != "documents.values":
        changes.append({**arrays, name: np.zeros((3, 5, 2), arrays[name].dtype)})
    changes.append({**arrays, name: arrays[name][:-1]})
    if name == "documents.values":
        del changes[0]
    for changed in changes:
        compact_file.save(file, changed)
        with pytest.raises(CheckpointError, match=said):
            Predictor.load(spoilt)
    compact_file.save(file, arrays)
    Predictor.load(spoilt)


def test_arrays_that_do_not_fit_each_other_are_told(spoilt: Path) -> None:
    file = spoilt / "model.safetensors"
    arrays = compact_file.load(file)
    fewer = {"rows.int8": arrays["rows.int8"][:-1], "rows.scale": arrays["rows.scale"][:-1]}
    narrow = {"proxies.int8": arrays["proxies.int8"][:, :-1]}
    documents = {
        "documents.counts": np.append(arrays["documents.counts"], 0).astype(np.uint8),
        "documents.scale": np.append(arrays["documents.scale"], 0).astype(np.float16),
    }
    nan = arrays["bias"].copy()
    nan[2] = np.nan
    for change, said in (
        (fewer, "rows is"),
        (narrow, "proxies is"),
        (documents, "541 documents, labels of 540"),
        ({"bias": nan}, "bias is not finite"),
        ({"weights": np.ones(299, np.float16)}, "weights are"),
        ({"weights": np.full(300, np.nan, np.float16)}, "weights is not finite"),
        ({"document_labels.num_columns": np.array([81])}, "document_labels is"),
        ({"documents.num_columns": np.array([301])}, "documents is"),
    ):
        compact_file.save(file, {**arrays, **change})
        with pytest.raises(CheckpointError, match=rf"model\.safetensors: damaged.*{said}"):
            Predictor.load(spoilt)


# ---- the command line ----


@pytest.fixture
def named(data: DataSet, tmp_path: Path) -> DataSet:
    """The made data set with the files that give it a meaning."""
    path = tmp_path / "named"
    shutil.copytree(data.path, path)
    (path / "labels.txt").write_text("".join(f"name of\u2028 {n}\n" for n in range(80)))
    (path / "vectorizer.json").write_text("{}\n")
    return DataSet.open(path)


def test_commands_take_an_export_as_a_run(
    runs: dict[str, RunFolder], named: DataSet, tmp_path: Path, capsys: Capture
) -> None:
    run, out = tmp_path / "run", tmp_path / "model"
    shutil.copytree(runs["proxy"].path, run)
    text = (run / "config.yaml").read_text()
    here = [line for line in text.splitlines() if line.startswith("data:")]
    (run / "config.yaml").write_text(text.replace(here[0], f"data: {named.path}"))
    assert main(["export", str(run), str(out), "--dtype", "fp16"]) == 0
    size = sum(file.stat().st_size for file in out.iterdir())
    said = f"{out}: model of epoch {model_of_run(run).epoch} as fp16, {size / 1e6:,.1f} MB\n"
    assert capsys.readouterr() == (said, "")
    assert (out / "vectorizer.json").read_text() == "{}\n"
    assert not (out / "features.txt").exists()
    assert main(["evaluate", str(out), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    expected = evaluate(Predictor.load(run), named, "test")
    for key in METRICS:
        assert results[key] == pytest.approx(expected[key], abs=1.0)
    assert main(["examples", str(out), "--count", "3"]) == 0
    assert capsys.readouterr().out.count("document ") == 3
    # Where the data set has gone, predictions still have names.
    moved = named.path.rename(tmp_path / "moved")
    assert main(["predict", str(out), str(moved), "--top-k", "3"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    labels = Predictor.load(out).predict(named.split("test").features, 3).labels
    assert [line["labels"] for line in lines] == labels.tolist()
    assert lines[0]["names"] == [f"name of\u2028 {label}" for label in labels[0]]
    (out / "labels.txt").write_text("one\ntwo\n")
    assert main(["predict", str(out), str(moved)]) == 1
    assert re.match(r"error: .*labels\.txt: 2 names, not 80", capsys.readouterr().err)
    (out / "labels.txt").write_bytes(b"\xff\n" * 80)
    assert main(["predict", str(out), str(moved)]) == 1
    assert re.match(r"error: .*labels\.txt: damaged", capsys.readouterr().err)


def test_the_command_says_what_is_wrong(
    runs: dict[str, RunFolder], tmp_path: Path, capsys: Capture
) -> None:
    run = str(runs["proxy"].path)
    for arguments, said in (
        ([run, str(tmp_path)], "exists already"),
        ([str(tmp_path / "nowhere"), str(tmp_path / "out")], "no run here"),
    ):
        assert main(["export", *arguments]) == 1
        assert re.match(f"error: .*{said}", capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main(["export", run, str(tmp_path / "out"), "--dtype", "int4"])
    assert list(tmp_path.iterdir()) == []
