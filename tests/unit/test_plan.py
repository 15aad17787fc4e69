"""Plans: the bytes of parts against the parts themselves, nodes, remedies for what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import make_config, train

from ray_xml.coarse_search import CoarseSearch, beside_bytes, training_bytes
from ray_xml.embeddings import EmbeddingFile
from ray_xml.errors import ConfigError
from ray_xml.exchange import Exchange
from ray_xml.label_range import LabelRange
from ray_xml.model_share import new_share
from ray_xml.plan import Nodes, Plan, plan
from ray_xml.plan_counts import Counts, planned_counts
from ray_xml.plan_fit import remedies
from ray_xml.plan_memory import expected_candidates
from ray_xml.plan_parts import Process, need_of
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet
from ray_xml.synth_shapes import shape

GIB = 2**30
BIG = Nodes(1, cpus=8, memory=64 * GIB)


def part(made: Plan, role: str, name: str) -> int:
    """Bytes of one part of one process."""
    process = next(one for one in made.processes if one.role == role)
    return sum(one.nbytes for one in process.parts if one.name == name)


def config_of(data: DataSet, workers: int = 1, **classifier: Any) -> RunConfig:
    resources = {"workers": workers, "label_shards": 1}
    made = make_config(classifier={"random_negatives": 20, **classifier}, resources=resources)
    return made.model_copy(update={"data": str(data.path)})


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adam", "adam_row", "sgd"])
def test_tables_are_as_large_as_planned(data: DataSet, storage: str, optimizer: str) -> None:
    config = config_of(data, storage=storage, optimizer=optimizer).resolved(data)
    counts = Counts.of_data(data)
    made = plan(config, counts, BIG)
    labels = data.split("train").labels
    encoder, classifier = new_share(
        config, data.split("train").features, labels.column_counts(), Exchange(),
        torch.device("cpu"), empty=True,
    )  # fmt: skip

    def held(*tensors: torch.Tensor) -> int:
        return sum(tensor.nbytes for tensor in tensors)

    moments = [*classifier.weight_adam.state().values(), *classifier.bias_adam.state().values()]
    assert part(made, "worker 0", "token table") == held(encoder.table)
    assert part(made, "worker 0", "token table: Adam") == held(*encoder.table_adam.state().values())
    assert part(made, "worker 0", "classifier rows") == held(classifier.weight)
    assert part(made, "worker 0", "classifier rows: optimizer") == held(*moments, classifier.bias)


def test_a_label_shard_holds_what_is_planned(data: DataSet, tmp_path: Path) -> None:
    config = config_of(data).resolved(data)
    made = plan(config, Counts.of_data(data), BIG)
    training = train(data, config, tmp_path / "run")
    ranges = training.ranges
    one: LabelRange = ranges._ranges[0]  # type: ignore[attr-defined]
    vectors, rows = one._vectors, one._row_vectors
    assert vectors is not None
    assert rows is not None
    documents = one._documents
    # ``local_ranges`` leaves the storage to the range itself: float32 for so few labels.
    assert part(made, "label shard 0", "centroids, then proxies") == vectors.nbytes
    assert part(made, "label shard 0", "classifier rows") == rows.nbytes
    planned = part(made, "label shard 0", "its labels' documents")
    assert planned == pytest.approx(documents.ids.nbytes + documents.offsets.nbytes, rel=0.15)
    # The words of labels are counted as if those of their documents never met twice.
    file = part(made, "worker 0", "sparse channel's file")
    assert file >= RunFolder(tmp_path / "run").neighbors_file.stat().st_size - 4096
    embeddings = EmbeddingFile(tmp_path, training.features.num_rows, config.encoder.dim)
    assert part(made, "label shard 0", "embeddings' file") == embeddings.nbytes


@pytest.mark.parametrize("kind", ["pq", "ivf"])
def test_an_index_keeps_what_is_planned_beside_its_vectors(kind: Any) -> None:
    vectors = np.random.default_rng(0).standard_normal((3000, 20), np.float32)
    held = CoarseSearch(vectors, kind, 8).nbytes
    # FAISS counts what is in the lists; what they have room for comes on top.
    assert held <= beside_bytes(3000, 20, kind) <= 1.5 * held
    assert training_bytes(3000, 20) == 2 * vectors.nbytes


def test_candidates_are_those_that_batches_have(data: DataSet) -> None:
    """Against batches drawn at random, with lists of one that name labels evenly."""
    config = config_of(data).resolved(data)
    config = config.model_copy(
        update={"shortlist": config.shortlist.model_copy(update={"size": 1})}
    )
    counts = Counts.of_data(data)
    random = np.random.default_rng(1)
    labels = data.split("train").labels
    active = np.flatnonzero(counts.label_counts)
    met = []
    for _ in range(200):
        batch = random.choice(counts.documents, config.training.batch, replace=False)
        named = random.choice(active, len(batch))
        drawn = random.integers(counts.labels, size=20)
        found = np.concatenate([labels.take(batch).ids, named, drawn])
        met.append(len(np.unique(found)))
    assert expected_candidates(config, counts).sum() == pytest.approx(np.mean(met), rel=0.03)


def test_candidates_are_topped_up_to_those_asked_for() -> None:
    counts = Counts.of_shape(shape(like="amazontitles-3m", scale=0.01))
    config = make_config(
        classifier={"candidates": 9000, "random_negatives": 100}, training={"batch_size": 32}
    ).resolved_for(counts.documents, counts.labels, counts.pairs)
    assert expected_candidates(config, counts).sum() == pytest.approx(9000, rel=0.03)
    every = make_config(classifier={"random_negatives": counts.labels})
    every = every.resolved_for(counts.documents, counts.labels, counts.pairs)
    assert expected_candidates(every, counts).sum() == counts.labels


def test_a_node_needs_its_fullest_phase_and_shared_pages_once() -> None:
    one, two, far = Process("a", 0), Process("b", 0), Process("c", 1)
    one.add("kept", 10, ("proxies", "train"))
    one.add("steps", 5, ("train",))
    two.add("fit", 9, ("proxies",))
    for process in (one, two):
        process.add("file", 100, ("train",), "cache")
        process.add("blocks", 2, ("proxies",), "store")
    far.add("kept", 1000, ("train",))
    need = need_of(0, [one, two, far])
    assert (need.peak, need.phase, need.cache, need.train_together) == (21, "proxies", 100, 115)
    assert (one.peak, one.peak_phase, two.peak) == (15, "train", 9)


def big(memory: float, **changes: Any) -> Plan:
    """A plan for AmazonTitles-3M on one node."""
    sections = {
        "classifier": {"negatives": "union", "random_negatives": 2048, **changes},
        "encoder": {"dim": 300, "tokens": "random"},
        "training": {"batch_size": 256},
        "shortlist": {"size": 100},
        "resources": {"workers": 2, "label_shards": 2},
    }
    counts = Counts.of_shape(shape(like="amazontitles-3m"))
    return plan(make_config(**sections), counts, Nodes(1, 8, int(memory * GIB)))


def test_remedies_fit_and_the_plan_without_them_does_not() -> None:
    made = big(16, storage="float32", optimizer="adam")
    assert not made.fits
    assert "node 0 needs" in made.problems[0]
    found = remedies(made)
    assert found[0].changes == ("classifier.storage=bfloat16", "classifier.optimizer=adam_row")
    assert found[-1].changes[0] == "--nodes 2"
    for one in found:
        assert one.plan.fits
        assert one.plan.peak < made.peak
        # Planned again by whoever reads the changes, they say the same.
        tree = made.config.model_dump(mode="json")
        for key, _, value in (change.partition("=") for change in one.changes if "=" in change):
            tree[key.split(".")[0]][key.split(".")[1]] = value
        again = plan(RunConfig.model_validate(tree), made.counts, one.plan.nodes)
        assert again.as_dict() == one.plan.as_dict()
    assert remedies(big(64)) == []


def test_where_no_single_change_is_enough_several_are_joined() -> None:
    one = big(16, storage="float32", optimizer="adam")
    singles = {r.changes for r in remedies(one)}
    tight = replace(one, problems=["tight"], nodes=replace(one.nodes, memory=int(8.9 * GIB)))
    found = [r for r in remedies(tight) if not r.changes[0].startswith("--nodes")]
    assert found
    assert found[0].changes not in singles
    assert len(found[0].changes) > 2


def test_what_else_does_not_fit() -> None:
    base = make_config(resources={"workers": 4, "label_shards": 2})
    counts = Counts.of_shape(shape())
    assert "4 workers of 1 CPU" in plan(base, counts, Nodes(1, 2, 64 * GIB)).problems[0]
    gpu = make_config(resources={"workers": 1, "label_shards": 1, "gpus_per_worker": 1})
    assert "1 GPUs" in plan(gpu, counts, BIG).problems[0]
    small = Nodes(1, 8, 64 * GIB, gpus=1, gpu_memory=GIB // 2)
    assert "of GPU memory" in plan(gpu, counts, small).problems[0]
    roomy = plan(gpu, counts, replace(small, gpu_memory=80 * GIB))
    assert roomy.fits
    worker = next(one for one in roomy.processes if one.role == "worker 0")
    assert worker.most("gpu") > 0
    with pytest.raises(ConfigError, match=r"lower resources\.workers"):
        plan(make_config(resources={"workers": 30}), counts, BIG)


def test_processes_are_spread_over_nodes() -> None:
    config = make_config(resources={"workers": 4, "label_shards": 3})
    made = plan(config, Counts.of_shape(shape()), replace(BIG, count=2))
    places = {one.role: one.node for one in made.processes}
    assert [places[f"worker {r}"] for r in range(4)] == [0, 0, 1, 1]
    assert [places[f"label shard {s}"] for s in range(3)] == [0, 0, 1]
    assert made.needs[0].peak > made.needs[1].peak


def test_counts_come_from_the_data_the_shape_or_the_config(data: DataSet) -> None:
    config = config_of(data)
    counts = planned_counts(config, None)
    labels = data.split("train").labels
    assert counts.label_counts.tolist() == labels.column_counts().tolist()
    assert (counts.documents, counts.features, counts.labels) == (600, 300, 80)
    like = planned_counts(config, "bibtex")
    assert (like.documents, like.labels, like.pairs > 0) == (4880, 159, True)
    assert like.label_counts.min() >= 1
    named = make_config(dataset={"name": "Bibtex"})
    assert planned_counts(named, None).labels == 159
    asked = planned_counts(named, None, {"labels": 500.0, "documents": 100.0})
    assert (asked.labels, asked.documents, asked.features) == (500, 100, 1836)
    with pytest.raises(ConfigError, match="nothing says what data set"):
        planned_counts(make_config(), None)


def test_what_is_held_out_is_not_counted() -> None:
    counts = Counts(1000, 0, 50, 9000, np.array([1000, 100, 1, 0]))
    left = counts.without(0.1)
    assert left.documents == 900
    assert left.label_counts[:2].tolist() == [900, 90]
    assert left.label_counts[3] == 0
    same = counts.without(0.0)
    assert same.label_counts.tolist() == counts.label_counts.tolist()


def test_the_file_of_a_data_set_is_as_large_as_counted(data: DataSet) -> None:
    counts = Counts.of_data(data)
    assert counts.nbytes == pytest.approx((data.path / "train.arrow").stat().st_size, rel=0.05)
