"""Hostile models and documents: the sparse channel's file, exported models, rows of any numbers."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny import DIM, FEATURES, LABELS, Artefacts, make_artefacts, put_right
from traps import Trap

from ray_xml import compact_file
from ray_xml.blend import DEFAULT, Blend
from ray_xml.errors import CheckpointError, DataSetError
from ray_xml.examples import examples
from ray_xml.export import label_names
from ray_xml.lexical_file import load_lexical
from ray_xml.model import model_of_run
from ray_xml.neighbors import NeighborsConfig
from ray_xml.predict_io import documents, predict_to, sink
from ray_xml.predictor import Predictor
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_meta import DataSetMeta


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return make_artefacts(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def predictor(made: Artefacts) -> Predictor:
    return Predictor.load(made.run)


@pytest.fixture
def exported(made: Artefacts, tmp_path: Path) -> Path:
    """An export to spoil."""
    return Path(shutil.copytree(made.exported, tmp_path / "model"))


LEXICAL: list[tuple[str, Any]] = [
    ("widths", np.array([18, 2**40])),
    ("widths", np.array([2**40, LABELS])),
    ("widths", np.array([-1, -1])),
    ("widths", np.array([18.0, 6.0], np.float32)),
    ("postings.offsets", lambda a: a.astype(np.int32)),
    ("postings.offsets", lambda a: a[::-1].copy()),
    ("postings.offsets", lambda a: a[:0]),
    ("postings.ids", lambda a: a.astype(np.float32)),
    ("postings.values", lambda a: a * np.float32(np.nan)),
    ("labels.offsets", lambda a: a + 1),
    ("labels.ids", lambda a: a + LABELS),
    ("words.values", lambda a: a.astype(np.int32)),
    ("words.values", lambda a: a * np.float32(np.inf)),
    ("words.scale", lambda a: a * np.float32(np.nan)),
    ("words.share", lambda a: a.astype(np.int64)),
    ("another", np.zeros(3, np.float32)),
]


@pytest.mark.parametrize(("name", "change"), LEXICAL, ids=range(len(LEXICAL)))
def test_a_sparse_channel_that_lies_is_refused(
    made: Artefacts, tmp_path: Path, name: str, change: Any
) -> None:
    arrays = load_file(made.run / "neighbors.safetensors")
    arrays[name] = change(arrays[name]) if callable(change) else change
    path = tmp_path / "lexical"
    save_file(arrays, path, metadata={"format_version": "2"})
    with pytest.raises(CheckpointError, match="damaged"):
        load_lexical(path, NeighborsConfig())


def test_pickles_are_not_executed(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    path = exported / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(CheckpointError, match="damaged"):
        load_lexical(path, NeighborsConfig())
    with pytest.raises(CheckpointError, match="damaged"):
        Predictor.load(exported)
    assert not mark.exists()


def change_manifest(exported: Path, **changes: Any) -> None:
    path = exported / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["documents", "document_labels"])
@pytest.mark.parametrize("width", [2**31 - 1, 2**30, 2**21])
def test_an_export_cannot_claim_any_width(exported: Path, name: str, width: int) -> None:
    file = exported / "model.safetensors"
    arrays = compact_file.load(file)
    arrays[f"{name}.num_columns"] = np.array([width])
    compact_file.save(file, arrays)
    key = "num_features" if name == "documents" else "num_labels"
    change_manifest(exported, **{key: width})
    with pytest.raises(CheckpointError, match=f"{width:,} {name} columns for .* bytes"):
        Predictor.load(exported)


@pytest.mark.parametrize(
    "changes",
    [{"epoch": 10**400}, {"epoch": float("inf")}, {"num_labels": 2**31}, {"num_labels": -6},
     {"num_features": True}, {"blend": {}}, {"exact": 1}, {"kind": ["x"] * 99999},
     {"format_version": 10**400}, {"num_labels": 6.0}],
    ids=range(10),
)  # fmt: skip
def test_a_hostile_manifest_of_an_export_is_told(exported: Path, changes: dict[str, Any]) -> None:
    change_manifest(exported, **changes)
    for read in (Predictor.load, label_names):
        with pytest.raises(CheckpointError, match=r"manifest\.json") as caught:
            read(exported)
        assert len(str(caught.value)) < 2000


def test_a_config_that_was_not_resolved_is_told(exported: Path) -> None:
    path = exported / "config.yaml"
    path.write_text(path.read_text().replace("size: 3", "size: null"))
    with pytest.raises(CheckpointError, match=r"shortlist\.size"):
        Predictor.load(exported)


def test_a_model_beyond_its_numbers_gives_an_error_and_no_nan(exported: Path) -> None:
    file = exported / "model.safetensors"
    arrays = compact_file.load(file)
    for name in ("table", "rows", "proxies"):
        arrays[f"{name}.scale"] = np.full(len(arrays[f"{name}.int8"]), 2e36, np.float32)
    compact_file.save(file, arrays)
    loaded = Predictor.load(exported)
    with np.errstate(all="ignore"), pytest.raises((CheckpointError, DataSetError), match="large"):
        loaded.predict(Csr.from_lists([[1, 2]], FEATURES, [[1.0, 1.0]]))


def test_the_scores_numbers_are_bounded() -> None:
    good = DEFAULT.as_dict()
    assert np.array_equal(Blend.from_dict(good).weights, DEFAULT.weights)
    for wrong in (1e308, float("nan"), float("-inf")):
        with pytest.raises(ValueError, match="finite"):
            Blend.from_dict({**good, "weights": [wrong, *good["weights"][1:]]})


@pytest.mark.parametrize("value", [1e38, -1e38, 1e30, 1e10])
@pytest.mark.parametrize("rows", [1, 3])
def test_values_beyond_the_model_are_told(predictor: Predictor, value: float, rows: int) -> None:
    many = Csr.from_lists([[1, 3]] * rows, FEATURES, [[value, 1.0]] * rows)
    with pytest.raises(DataSetError, match="values are too large"):
        predictor.predict(many)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_told(predictor: Predictor, value: float) -> None:
    with pytest.raises(DataSetError, match="not all finite"):
        predictor.predict(Csr.from_lists([[1]], FEATURES, [[value]]))


lies = st.sampled_from([0, 1, 2, 3, 4, -1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63)])
ids = st.sampled_from([0, 1, 2, FEATURES - 1, FEATURES, -1, 2**31 - 1, -(2**31)])
floats = st.sampled_from([0.0, -0.0, 1.0, -2.5, 1e-40, 1e4, 3e38, -3e38, float("nan")])


@given(
    offsets=st.lists(lies, min_size=1, max_size=5) | st.just([0, 2, 3]),
    ids=st.lists(ids, min_size=3, max_size=3),
    values=st.lists(floats, min_size=3, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_any_rows_are_predicted_for_or_refused(
    predictor: Predictor, offsets: list[int], ids: list[int], values: list[float]
) -> None:
    rows = Csr(
        np.array(offsets, np.int64), np.array(ids, np.int32), np.array(values, np.float32), FEATURES
    )
    try:
        labels, scores = predictor.predict(rows, 3)
    except DataSetError:
        return
    assert labels.shape == scores.shape == (len(offsets) - 1, 3)
    assert ((labels >= -1) & (labels < LABELS)).all()
    assert ((scores[labels >= 0] >= 0) & (scores[labels >= 0] <= 1)).all()


@pytest.mark.parametrize("ending", ["jsonl", "npz", "parquet"])
def test_a_document_of_large_values_leaves_no_half_file(
    predictor: Predictor, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / "documents.txt"
    path.write_text(f"2 {FEATURES}\n1:1\n1:1e38\n")
    with (
        pytest.raises(DataSetError, match="too large"),
        sink(str(tmp_path / f"out.{ending}"), None) as target,
    ):
        predict_to(predictor, documents(str(path), "test", predictor.num_features), target, top=2)
    assert [one.name for one in tmp_path.iterdir()] == ["documents.txt"]


def test_a_run_with_numbers_that_are_not_finite_is_told(made: Artefacts, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made.run, tmp_path / "run"))
    (part,) = run.glob("checkpoints/*/proxies-00000.safetensors")
    raw = bytearray(part.read_bytes())
    raw[-4 * DIM * LABELS :] = np.full(DIM * LABELS, np.nan, np.float32).tobytes()
    part.write_bytes(raw)
    put_right(part)
    with pytest.raises(CheckpointError, match="proxies holds numbers that are not finite"):
        model_of_run(run)


def test_lists_are_no_longer_than_there_is_to_list(made: Artefacts, exported: Path) -> None:
    path = exported / "config.yaml"
    asked = DataSet.open(made.data).split("test").features
    before = Predictor.load(exported).predict(asked, 3)
    text = path.read_text()
    assert text.count("  size: 3\n") == text.count("  size: 4\n") == 1
    large = text.replace("  size: 4\n", f"  size: {10**12}\n")  # of neighbors
    path.write_text(large.replace("  size: 3\n", f"  size: {10**30}\n"))  # of shortlist
    after = Predictor.load(exported).predict(asked, 3)
    assert after.labels.shape == before.labels.shape
    path.write_text(text.replace("  labels: 4\n", f"  labels: {10**12}\n"))
    with pytest.raises(CheckpointError, match=r"neighbors\.labels"):
        Predictor.load(exported)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "0 lines for 6 documents"), (b"{}\n" * 6, "line .: no JSON object"),
     (b'{"name": 1, "summary": []}\n' * 6, "no JSON object"), (b"[" * 9999 + b"\n" * 6, "no JSON"),
     (b"\xff\n" * 6, "cannot be read")],
    ids=range(5),
)  # fmt: skip
def test_damaged_titles_are_told(
    made: Artefacts, tmp_path: Path, content: bytes, said: str
) -> None:
    run, data = shutil.copytree(made.run, tmp_path / "run"), tmp_path / "data"
    shutil.copytree(made.data, data)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(made.data), str(data)))
    assert len(list(examples(str(run), "test", 3, seed=0))) == 3
    titles, meta = data / "test_documents.jsonl", json.loads((data / "meta.json").read_text())
    titles.write_bytes(content)
    meta["files"][titles.name]["bytes"] = len(content)
    signed = DataSetMeta.model_validate(meta)
    signed = signed.model_copy(update={"checksum": signed.computed_checksum()})
    (data / "meta.json").write_text(signed.model_dump_json())
    with pytest.raises(DataSetError, match=rf"test_documents\.jsonl.*({said})"):
        list(examples(str(run), "test", 6, seed=0))
