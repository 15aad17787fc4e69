"""The run's config: learning rates, what identifies a run, and holding it against the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import make_config

from ray_xml import run_identity
from ray_xml.config import build_config, dump_config, load_config
from ray_xml.errors import ConfigError, DataSetError
from ray_xml.run_config import RARE, RunConfig, check_data, differences
from ray_xml.run_sections import TrainingConfig
from ray_xml.store import DataSet
from ray_xml.store_write import DataSetWriter
from ray_xml.yaml_text import parse_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_the_step_schedule() -> None:
    training = TrainingConfig(rate=0.8, schedule="step", decay_epoch=14)
    expected = {0: 0.8, 13: 0.8, 14: 0.4, 20: 0.4, 21: 0.2, 27: 0.2, 28: 0.1, 35: 0.05}
    for epoch, rate in expected.items():
        assert training.rate_at(epoch) == pytest.approx(rate)
        assert training.rate_at(epoch + 0.99) == pytest.approx(rate)
    early = TrainingConfig(rate=0.8, decay_epoch=2)  # then every 5 epochs at least
    assert [early.rate_at(epoch) for epoch in (1, 2, 6, 7, 12)] == [0.8, 0.4, 0.4, 0.2, 0.1]


def test_the_linear_and_the_constant_schedule() -> None:
    linear = TrainingConfig(rate=0.8, schedule="linear", epochs=4)
    assert [linear.rate_at(p) for p in (0, 0.5, 2, 3.5, 4, 5)] == pytest.approx(
        [0.8, 0.7, 0.4, 0.1, 0.0, 0.0]
    )
    constant = TrainingConfig(rate=0.8, schedule="constant", decay_epoch=1)
    assert {constant.rate_at(p) for p in (0, 0.5, 7, 100)} == {0.8}


def test_open_sizes_come_from_the_data(data: DataSet) -> None:
    config = make_config(shortlist={"size": None}, training={"batch_size": None}).resolved(data)
    assert (config.shortlist.listed, config.training.batch) == (80, 32)
    both = make_config(shortlist={"source": "both"}).resolved(data)
    assert (both.shortlist.listed, both.shortlist.width, both.training.batch) == (12, 24, 64)
    with pytest.raises(AssertionError, match="not resolved"):
        assert RunConfig().training.batch


@pytest.mark.parametrize(
    ("documents", "batch"), [(5, 32), (6_400, 64), (15_000, 128), (60_000, 256), (10**7, 256)]
)
def test_small_data_sets_get_small_batches(data: DataSet, documents: int, batch: int) -> None:
    split = data.meta.splits["train"].model_copy(update={"documents": documents})
    meta = data.meta.model_copy(update={"splits": {"train": split}})
    config = make_config(training={"batch_size": None})
    assert config.resolved(DataSet(data.path, meta)).training.batch == batch


AUTO: dict[str, dict[str, Any]] = {
    "encoder": {"tokens": "auto", "token_scale": None, "rate_factor": None},
    "classifier": {"negatives": "auto", "random_negatives": None},
    "training": {"epochs": None},
}


@pytest.mark.parametrize(("pairs", "rare"), [(80 * RARE - 1, True), (80 * RARE, False)])
def test_what_is_left_open_follows_the_documents_of_a_label(
    data: DataSet, pairs: int, rare: bool
) -> None:
    split = data.meta.splits["train"].model_copy(update={"label_pairs": pairs})
    other = DataSet(data.path, data.meta.model_copy(update={"splits": {"train": split}}))
    config = make_config(**AUTO).resolved(other)
    assert config.encoder.tokens == ("random" if rare else "svd")
    assert (config.encoder.scale, config.encoder.slowed) == ((4.0, 0.05) if rare else (1.0, 1.0))
    assert config.classifier.negatives == ("random" if rare else "union")
    assert config.classifier.drawn == 80  # all of them: there are few
    assert config.training.total == (2 if rare else 10)
    assert config.resolved(data) == config
    # What is set stays set.
    fixed = make_config(training={"epochs": 7}, encoder={"token_scale": 2.0}).resolved(other)
    assert (fixed.training.total, fixed.encoder.scale, fixed.encoder.tokens) == (7, 2.0, "random")


@pytest.mark.parametrize(("negatives", "drawn"), [("random", 4096), ("union", 2048)])
def test_of_many_labels_a_few_thousand_are_drawn(data: DataSet, negatives: str, drawn: int) -> None:
    many = DataSet(data.path, data.meta.model_copy(update={"num_labels": 8193}))
    classifier = {"negatives": negatives, "random_negatives": None}
    config = make_config(classifier=classifier).resolved(many)
    assert config.classifier.drawn == drawn
    assert config.classifier.uses_shortlists(8193) == (negatives == "union")


@pytest.mark.parametrize(
    ("labels", "rows", "optimizer", "vectors"),
    [
        (80, "float32", "adam", "float32"),
        (200_000, "float32", "adam", "float32"),
        (200_001, "float32", "adam", "float16"),
        (500_000, "float32", "adam", "float16"),
        (500_001, "bfloat16", "adam_row", "float16"),
    ],
)
def test_many_labels_are_stored_lean(
    data: DataSet, labels: int, rows: str, optimizer: str, vectors: str
) -> None:
    many = DataSet(data.path, data.meta.model_copy(update={"num_labels": labels}))
    config = make_config().resolved(many)
    assert (config.classifier.storage, config.classifier.optimizer) == (rows, optimizer)
    assert config.shortlist.storage == vectors
    assert config.classifier.second == {"adam": "element", "adam_row": "row"}[optimizer]
    assert config.shortlist.dtype(1) == config.shortlist.dtype(10**7) == np.dtype(vectors)
    assert config.resolved(data) == config  # what is known is not asked again


@pytest.mark.parametrize(
    ("storage", "optimizer", "resolved"),
    [
        ("bfloat16", "auto", "adam_row"),
        ("float32", "auto", "adam"),
        ("bfloat16", "adam", "adam"),
        ("float32", "sgd", "sgd"),
        ("auto", "adam_row", "adam_row"),
    ],
)
@pytest.mark.parametrize("labels", [80, 1_000_000])
def test_what_is_said_of_storage_holds(
    data: DataSet, storage: str, optimizer: str, resolved: str, labels: int
) -> None:
    many = DataSet(data.path, data.meta.model_copy(update={"num_labels": labels}))
    classifier = {"storage": storage, "optimizer": optimizer}
    config = make_config(classifier=classifier, shortlist={"storage": "float32"}).resolved(many)
    if storage == "auto":
        assert config.classifier.storage == ("float32" if labels == 80 else "bfloat16")
    else:
        assert config.classifier.storage == storage
    assert config.classifier.optimizer == resolved
    assert config.shortlist.storage == "float32"
    assert config.shortlist.size == 12  # nothing else is lost on the way


def test_an_unresolved_optimizer_says_so() -> None:
    with pytest.raises(AssertionError, match="not resolved"):
        _ = make_config().classifier.second


@pytest.mark.parametrize(
    ("negatives", "drawn", "uses"),
    [("union", 79, True), ("union", 80, False), ("random", 0, False), ("shortlist", 80, True)],
)
def test_where_shortlists_have_a_say(negatives: str, drawn: int, uses: bool) -> None:
    config = make_config(classifier={"negatives": negatives, "random_negatives": drawn})
    assert config.classifier.uses_shortlists(80) == uses


FREE = [
    "training.epochs", "training.keep_checkpoints", "resources.workers", "data", "run",
    "logging.mlflow_experiment",
]  # fmt: skip
BINDING = ["training.rate", "training.seed", "encoder.dim", "shortlist.size", "proxy.passes"]


def changed(base: RunConfig, dotted: str) -> RunConfig:
    """``base`` with another value at ``dotted``."""
    tree: dict[str, Any] = base.model_dump(mode="json")
    *parents, leaf = dotted.split(".")
    node = tree
    for part in parents:
        node = node[part]
    node[leaf] = "elsewhere" if isinstance(node[leaf], str) else node[leaf] + 1
    return build_config(RunConfig, tree, origin="test")


@pytest.mark.parametrize("key", FREE)
def test_free_keys_do_not_make_another_run(key: str) -> None:
    base = make_config()
    assert changed(base, key) != base
    assert changed(base, key).identity() == base.identity()
    assert differences(base, changed(base, key)) == []


def test_a_config_file_as_plain_values_has_the_same_identity(data: DataSet) -> None:
    for config in (make_config(), make_config(training={"rate": 2e-6}).resolved(data)):
        tree = parse_yaml(dump_config(config))
        assert run_identity.identity(tree) == config.identity()


@pytest.mark.parametrize("key", BINDING)
def test_other_keys_do(key: str) -> None:
    base, other = make_config(), changed(make_config(), key)
    assert other.identity() != base.identity()
    (line,) = differences(base, other)
    assert line.startswith(f"{key}: ")
    assert " → " in line


def test_the_number_of_epochs_binds_a_linear_schedule() -> None:
    base = make_config(training={"schedule": "linear", "epochs": 2})
    more = make_config(training={"schedule": "linear", "epochs": 4})
    assert base.identity() != more.identity()
    assert differences(base, more) == ["training.epochs: 2 → 4"]
    (line,) = differences(base, make_config(training={"schedule": "step", "epochs": 2}))[-1:]
    assert line == "training.schedule: linear → step"


def test_values_that_do_not_go_together_are_refused() -> None:
    for tree, message in (
        ({"dataset": {"propensity_a": 0.5}}, "propensity_b together"),
        ({"training": {"metric": "P@2"}}, "metric 'P@2' is none of P@1"),
        ({"training": {"validation": 1.0}}, "less than 1"),
        ({"encoder": {"dropout": 1.0}}, "less than 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_config(RunConfig, tree, origin="test")


def test_a_config_that_fits_its_data(data: DataSet) -> None:
    dataset = {"features": 300, "labels": 80, "train": 600, "test": 150}
    check_data(make_config(dataset=dataset), data)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"dataset": {"features": 301}}, "300 features.*with 301"),
        ({"dataset": {"labels": 81}}, "80 labels.*with 81"),
        ({"dataset": {"train": 599}}, "600 train documents.*with 599"),
        ({"dataset": {"test": 1500, "name": "Big"}}, "150 test documents.*for Big with 1,500"),
    ],
)
def test_another_data_set_is_refused(data: DataSet, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(DataSetError, match=message):
        check_data(make_config(**sections), data)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"shortlist": {"size": 81}}, "shortlist.size=81 is more than.*80 labels"),
        ({"resources": {"workers": 81}}, "81 workers or label shards, but only 80 labels"),
        ({"resources": {"label_shards": 81}}, "81 workers or label shards, but only 80 labels"),
        ({"resources": {"workers": 25}}, "encoder.dim=24 is less than resources.workers=25"),
        ({"training": {"validation": 0.9999}}, "validation=0.9999 sets all 600"),
        (
            {"shortlist": {"size": 0}, "neighbors": {"size": 0}},
            "shortlist.size=0 and neighbors.size=0 leave nothing to predict from",
        ),
        (
            {"shortlist": {"size": 0}, "classifier": {"negatives": "shortlist"}},
            "classifier.negatives=shortlist trains on shortlists; raise shortlist.size",
        ),
        ({"shortlist": {"size": 0}}, "classifier.negatives=union trains on shortlists"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    data: DataSet, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_data(make_config(**sections), data)


def test_too_little_data_is_refused(tmp_path: Path, data: DataSet) -> None:
    train = data.split("train")
    for name, split, documents in (("tiny", "train", 1), ("odd", "dev", 10)):
        with (
            DataSetWriter(tmp_path / name, name=name, num_features=300, num_labels=80) as writer,
            writer.split(split, leave_out_empty=True) as part,
        ):
            part.append(train.features.slice(0, documents), train.labels.slice(0, documents))
    with pytest.raises(DataSetError, match="1 training documents; nothing to learn"):
        check_data(make_config(), DataSet.open(tmp_path / "tiny"))
    with pytest.raises(DataSetError, match="no train split, only dev"):
        check_data(make_config(), DataSet.open(tmp_path / "odd"))


def test_left_out_documents_count_as_read(tmp_path: Path, data: DataSet) -> None:
    train = data.split("train")
    with (
        DataSetWriter(tmp_path / "gaps", name="gaps", num_features=300, num_labels=80) as writer,
        writer.split("train", leave_out_empty=True) as part,
    ):
        part.append(train.features.slice(0, 20), train.labels.slice(0, 20))
        part.append(train.features.slice(0, 0).padded(5), train.labels.slice(0, 5))
        part.append(train.features.slice(0, 3), train.labels.slice(0, 0).padded(3))
    gaps = DataSet.open(tmp_path / "gaps")
    assert gaps.split("train").num_documents == 20
    check_data(make_config(dataset={"train": 28}), gaps)
    with pytest.raises(DataSetError, match="28 train documents"):
        check_data(make_config(dataset={"train": 20}), gaps)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_in_the_repository_load(path: Path) -> None:
    config = load_config(RunConfig, path)
    assert load_config(RunConfig, path, ["training.seed=5"]).training.seed == 5
    assert config.training.validation > 0
