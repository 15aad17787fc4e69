"""Made data sets: the asked shape, the same bytes for the same seed, and something to learn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from ray_xml.cli import main
from ray_xml.errors import ConfigError
from ray_xml.metrics import top_labels_baseline
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.store_meta import DataSetMeta
from ray_xml.synth import SETTINGS, synthesise
from ray_xml.synth_labels import LabelUrn
from ray_xml.synth_model import SynthModel, mix
from ray_xml.synth_shapes import PUBLISHED, shape

CONFIGS = Path(__file__).parents[2] / "configs"
OWN = {"default", "demo", "scaling"}  # not of a published data set
SMALL = {"documents": 3000, "features": 2000, "labels": 600}


@pytest.fixture(scope="module")
def model() -> SynthModel:
    return SynthModel(shape(asked={"labels": 5000, "features": 20_000}))


@pytest.fixture(scope="module")
def documents(model: SynthModel) -> tuple[Csr, Csr]:
    return model.block("train", 0, 20_000)


def make(out: Path, *, seed: int = 0, block: int | None = None) -> DataSetMeta:
    return synthesise(out, shape(seed=seed, asked=SMALL), block=block)


def split_sums(meta: DataSetMeta) -> list[str]:
    """The checksums of the documents alone: ``synth.json`` holds the seed itself."""
    return [split.sha256 for split in meta.splits.values()]


# ---- the same bytes ----


def test_the_seed_decides_every_byte_and_the_block_none(tmp_path: Path) -> None:
    first = make(tmp_path / "a")
    assert make(tmp_path / "b").checksum == first.checksum
    assert make(tmp_path / "c", block=7).checksum == first.checksum
    assert make(tmp_path / "d", block=100_000).checksum == first.checksum
    other = make(tmp_path / "e", seed=1)
    assert not set(split_sums(other)) & set(split_sums(first))
    DataSet.open(tmp_path / "a").verify()


def test_more_documents_begin_with_the_fewer(tmp_path: Path) -> None:
    few = synthesise(tmp_path / "few", shape(asked=SMALL))
    more = synthesise(tmp_path / "more", shape(asked={**SMALL, "documents": 5000}))
    assert (few.splits["train"].documents, more.splits["train"].documents) == (3000, 5000)
    a, b = (DataSet.open(tmp_path / name).split("train") for name in ("few", "more"))
    np.testing.assert_array_equal(a.labels.ids, b.labels.ids[: a.labels.nnz])
    np.testing.assert_array_equal(a.features.values, b.features.values[: a.features.nnz])


def test_splits_are_other_documents_of_one_kind(model: SynthModel) -> None:
    (_, train), (_, test) = model.block("train", 0, 4000), model.block("test", 0, 4000)
    assert not np.array_equal(train.ids[:100], test.ids[:100])
    common = np.argsort(-train.column_counts())[:100]
    a, b = train.column_counts()[common], test.column_counts()[common]
    assert np.corrcoef(a, b)[0, 1] > 0.95


def test_mix_is_murmur3_s_finaliser() -> None:
    def slow(x: int) -> int:
        x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
        x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    numbers = [0, 1, 2**31, 2**32 - 1, 123_456_789]
    assert mix(np.array(numbers, np.uint32)).tolist() == [slow(x) for x in numbers]


# ---- the asked shape ----


def test_rows_are_ascending_distinct_and_in_range(documents: tuple[Csr, Csr]) -> None:
    for rows, width in zip(documents, (20_000, 5000), strict=True):
        assert rows.ids.dtype == np.int32
        assert rows.num_columns == width
        assert (int(rows.ids.min()), int(rows.ids.max())) >= (0, 0)
        assert rows.ids.max() < width
        assert rows.counts.min() >= 1
        row = rows.row_of_entry()
        assert (np.diff(rows.ids)[np.diff(row) == 0] > 0).all()


def test_values_are_positive_and_of_unit_length(documents: tuple[Csr, Csr]) -> None:
    features = documents[0]
    assert features.values is not None
    assert features.values.dtype == np.float32
    assert features.values.min() > 0
    squares = np.bincount(features.row_of_entry(), np.square(features.values, dtype=np.float64))
    np.testing.assert_allclose(squares, 1, atol=1e-5)
    # A rarer feature weighs more: single draws of one document differ by their idf alone.
    frequency = features.column_counts()[features.ids]
    rare, common = frequency < np.quantile(frequency, 0.2), frequency > np.quantile(frequency, 0.8)
    assert features.values[rare].mean() > 1.5 * features.values[common].mean()


@pytest.mark.parametrize(
    "asked",
    [
        {"labels_per_document": 5.0, "features_per_document": 30.0},
        {"labels_per_document": 1.0, "features_per_document": 1.0},
        {"labels_per_document": 36.18, "features_per_document": 9.0},
        {"labels_per_document": 1.75, "features_per_document": 100.0, "zipf": 0.0},
        {"labels_per_document": 40.0, "labels": 101, "features_per_document": 50, "features": 120},
        {"topics": 1, "labels": 2000},
    ],
)
def test_means_are_as_asked(asked: dict[str, float]) -> None:
    wanted = shape(asked={"labels": 5000, "features": 20_000, **asked})
    features, labels = SynthModel(wanted).block("test", 0, 10_000)
    assert labels.counts.mean() == pytest.approx(wanted.labels_per_document, rel=0.03)
    assert features.counts.mean() == pytest.approx(wanted.features_per_document, rel=0.03)


@pytest.mark.parametrize("zipf", [0.7, 1.0, 1.3])
def test_label_frequencies_follow_zipf(zipf: float) -> None:
    wanted = shape(asked={"labels": 20_000, "features": 5000, "zipf": zipf})
    _, labels = SynthModel(wanted).block("train", 0, 60_000)
    counts = np.sort(labels.column_counts())[::-1]
    # Beyond the rounded-off head, and where counts are not yet a few chance documents.
    ranks = np.geomspace(200, np.searchsorted(-counts, -20) - 1, 30).astype(int)
    slope = np.polyfit(np.log(ranks), np.log(counts[ranks]), 1)[0]
    assert slope == pytest.approx(-zipf, abs=0.15)
    assert 0.04 < counts[0] / 60_000 < 0.12
    assert np.count_nonzero(counts) > 10_000  # the tail is there
    # Numbers do not tell frequencies.
    assert abs(np.corrcoef(np.arange(20_000), labels.column_counts())[0, 1]) < 0.05


def test_an_urn_draws_labels_by_frequency_and_topics_by_mass() -> None:
    urn = LabelUrn(1000, 20, 5.0, 1.0, np.random.default_rng(0))
    assert len(urn.starts) == 21
    assert urn.starts[0] == 0
    assert urn.starts[-1] == len(urn.slots)
    assert (np.diff(urn.starts) > 0).all()
    assert set(urn.slots.tolist()) == set(range(1000))
    places = np.arange(len(urn.slots))
    slow = [max(t for t in range(20) if urn.starts[t] <= place) for place in places]
    np.testing.assert_array_equal(urn.topic_of(places), slow)
    shares = np.sort(np.bincount(urn.slots))[::-1] / len(urn.slots)
    assert shares[0] * 5 == pytest.approx(0.08, rel=0.15)
    # No label fills its topic: the frequent ones are in several.
    for topic in range(20):
        part = urn.slots[urn.starts[topic] : urn.starts[topic + 1]]
        assert np.bincount(part).max() < 0.5 * len(part)


def test_memory_does_not_grow_with_the_documents(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from ray_xml.cli import main\n"
        "assert main(['synth', *sys.argv[1:]]) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    peaks = []
    for count in ("2000", "120000"):  # the larger set has 33 MB
        command = [sys.executable, "-c", code, str(tmp_path / count), "--documents", count]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.splitlines()[-1]))
    size = (tmp_path / "120000" / "train.arrow").stat().st_size / 2**20
    assert size > 30
    assert peaks[1] - peaks[0] < size / 3


# ---- something to learn ----


def test_words_tell_labels(documents: tuple[Csr, Csr], model: SynthModel) -> None:
    features, labels = documents
    seen, truth = model.block("test", 0, 1000)
    x, y = features.to_scipy(), labels.to_scipy()
    centroids = (y.T @ x).tocsr()
    norms = np.sqrt(centroids.multiply(centroids).sum(axis=1)).A1
    scores = (seen.to_scipy() @ centroids.T).toarray() / np.maximum(norms, 1e-9)
    right = truth.to_scipy().toarray() > 0
    learnt = right[np.arange(1000), scores.argmax(axis=1)].mean()
    most_frequent = right[:, top_labels_baseline(labels.column_counts(), 1)[0]].mean()
    assert most_frequent < 0.12
    assert 4 * most_frequent < learnt < 0.95
    # Tail labels can be told too: they have words of their own.
    tail = labels.column_counts() <= np.median(labels.column_counts())
    found = np.argsort(-scores, axis=1)[:, :20]
    hits = np.take_along_axis(right & tail, found, axis=1).sum()
    assert hits > 0.3 * (right & tail).sum()


# ---- what can be asked for ----


def test_every_published_config_has_its_shape() -> None:
    for path in CONFIGS.glob("*.yaml"):
        stated = yaml.safe_load(path.read_text()).get("dataset", {})
        if path.stem in OWN:
            continue
        known = PUBLISHED[path.stem]
        for key in stated.keys() & {"train", "test", "features", "labels"}:
            assert getattr(known, key) == stated[key], (path.stem, key)
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == PUBLISHED.keys() | OWN


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_shape_can_be_asked_for(name: str) -> None:
    whole = shape(like=name)
    assert (whole.documents, whole.labels) == (PUBLISHED[name].train, PUBLISHED[name].labels)


def test_scale_and_what_is_asked_before_it() -> None:
    tenth = shape(like="amazontitles-3m", scale=0.1)
    assert (tenth.documents, tenth.test_documents) == (171_254, 73_966)
    assert (tenth.labels, tenth.features) == (281_228, 16_543)
    assert (tenth.labels_per_document, tenth.features_per_document) == (36.18, 9)
    wide = shape(like="amazontitles-3m", scale=0.1, asked={"labels": 2_812_281, "documents": 40})
    assert (wide.documents, wide.test_documents, wide.labels) == (40, 10, 2_812_281)
    assert shape(asked={"documents": 10**6}).test_documents == 20_000


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "set")
    call = ["synth", out, "--documents", "400", "--labels", "200", "--labels-per-document", "2.5"]
    assert main([*call, "--seed", "3", "--name", "mine"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: 20,000 features, 200 labels"
    assert said[1].startswith("  train: 400 documents, ")
    assert said[2].startswith("  test: 100 documents, ")
    data = DataSet.open(out)
    assert data.meta.name == "mine"
    settings = json.loads((data.path / SETTINGS).read_text())
    assert (settings["seed"], settings["labels_per_document"], settings["topics"]) == (3, 2.5, 8)
    assert main(call) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--like amazontitle-3m", "'amazontitle-3m'; did you mean amazontitles-3m or "),
        ("--like qqqqqqqq", "there are amazon-3m, "),
        ("--scale 0", "scale is 0; it must be above 0"),
        ("--scale -1", "scale is -1; it must be above 0"),
        ("--scale nan", "scale is nan; it must be above 0"),
        ("--documents 0", "documents is 0; it must lie between 1 and "),
        ("--labels 4", "cannot have 5 labels on average where there are 4 in all"),
        ("--labels 9", "labels_per_document is 5; it must lie between 1 and 4.5"),
        ("--features 20", "cannot have 30 features on average where there are 20"),
        ("--features-per-document 0.5", "features_per_document is 0.5; it must lie between 1"),
        ("--topics 5001", "topics is 5001; it must lie between 1 and 5,000"),
        ("--zipf -0.1", "zipf is -0.1; it must lie between 0 and 3"),
        ("--seed -1", "seed is -1; it must lie between 0"),
        (
            "--zipf 3 --labels 40 --labels-per-document 20",
            "ask for more labels in all, fewer",
        ),
    ],
)
def test_what_cannot_be_made(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", str(tmp_path / "set"), *arguments.split()]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_block_has_a_document(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="block is 0"):
        make(tmp_path / "set", block=0)
