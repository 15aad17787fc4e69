"""Labels cut into ranges predict as all of them do, bit for bit, from a run and from an export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trained import SOURCES, trained_run

from ray_xml import compact_file
from ray_xml.errors import CheckpointError
from ray_xml.export import ARRAYS, export, load_documents
from ray_xml.model import model_of_run
from ray_xml.model_place import ModelPlace
from ray_xml.predict_documents import BLOCK, DocumentSide, Predictions
from ray_xml.predict_shard import ModelShard
from ray_xml.predictor import Predictor
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import Csr
from ray_xml.store import DataSet


@pytest.fixture(scope="module")
def runs(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    return {source: trained_run(data, folder, source) for source in SOURCES}


@pytest.fixture(scope="module", params=["fp16", "int8"])
def exported(
    request: pytest.FixtureRequest,
    runs: dict[str, RunFolder],
    data: DataSet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out: Path = tmp_path_factory.mktemp("exported") / "model"
    export(model_of_run(runs["both"].path), data.path, out, request.param)
    return out


def sharded(place: ModelPlace, shards: int, features: Csr, top: int) -> Predictions:
    side = DocumentSide(place.documents())
    ranges = [ModelShard(place.labels(number, shards)) for number in range(shards)]
    held = [one.proxies.labels for one in ranges]
    assert max(len(one) for one in held) - min(len(one) for one in held) <= 1
    parts = []
    for _, block in features.blocks(BLOCK):
        question = side.ask(block, top)
        found = [one.search(question.embeddings, question.k, question.given) for one in ranges]
        parts.append(side.predict(question, found, top))
    return Predictions(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def assert_same(ours: Predictions, theirs: Predictions) -> None:
    assert ours.labels.tobytes() == theirs.labels.tobytes()
    assert ours.scores.tobytes() == theirs.scores.tobytes()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("shards", [1, 3, 7])
@pytest.mark.parametrize("top", [5, 40])
def test_ranges_of_a_run(
    runs: dict[str, RunFolder], data: DataSet, source: str, shards: int, top: int
) -> None:
    run = runs[source].path
    features = data.split("train").features.take(np.tile(np.arange(600), 2))  # two blocks
    alone = Predictor.load(run).predict(features, top)
    assert_same(sharded(ModelPlace.find(str(run)), shards, features, top), alone)


@pytest.mark.parametrize("shards", [1, 3])
def test_ranges_of_an_export(exported: Path, data: DataSet, shards: int) -> None:
    features = data.split("test").features
    alone = Predictor.load(exported).predict(features, 5)
    assert_same(sharded(ModelPlace.find(str(exported)), shards, features, 5), alone)


def test_more_ranges_than_labels(runs: dict[str, RunFolder], data: DataSet) -> None:
    """Ranges may be empty: some labels have no documents."""
    run = runs["both"].path
    features = data.split("test").features
    shards = data.meta.num_labels
    alone = Predictor.load(run).predict(features, 5)
    assert_same(sharded(ModelPlace.find(str(run)), shards, features, 5), alone)


def test_a_range_reads_its_own_labels_alone(exported: Path) -> None:
    whole = Predictor.load(exported).model
    parts = [ModelPlace.find(str(exported)).labels(number, 3) for number in range(3)]
    for name in ("labels", "proxies", "rows"):
        together = np.concatenate([getattr(part, name) for part in parts])
        assert together.tobytes() == getattr(whole, name).tobytes()
    assert parts[0].proxies.base is None  # no view that keeps all of them in memory


def test_another_model_in_the_same_place_is_refused(
    runs: dict[str, RunFolder], exported: Path
) -> None:
    for path in (runs["both"].path, exported):
        other = replace(ModelPlace.find(str(path)), checksum="0" * 64)
        for load in (other.documents, other.config, lambda other=other: other.labels(0, 1)):
            with pytest.raises(CheckpointError, match="holds another model here than where"):
                load()


def test_what_is_not_asked_for_need_not_be_readable(exported: Path) -> None:
    """The documents' side does not read the labels' arrays, nor the other way round."""
    arrays = compact_file.load(exported / ARRAYS, leave_out=("proxies", "rows"))
    assert not [name for name in arrays if name.startswith(("proxies", "rows"))]
    assert load_documents(exported).num_labels == 80
