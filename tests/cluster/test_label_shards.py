"""Label ranges as actors answer as they do in one process, and none outlives its run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from made import NUM_LABELS, Cycle, begin_cycle, local_ranges, make_config
from safetensors.numpy import load_file
from small_runs import no_shard_stays, shard_actors

from ray_xml.cluster.label_shards import LabelShards, ShardedRanges
from ray_xml.cluster.session import NAMESPACE, Shares
from ray_xml.errors import StaleError, TrainingError
from ray_xml.label_search import GIVEN, Found
from ray_xml.proxies import PairSums, fit, identity_map
from ray_xml.ranges import LocalRanges, Ranges
from ray_xml.run_config import RunConfig
from ray_xml.run_data import split_rows
from ray_xml.store import DataSet

DIM, BLOCK = 24, 128
SHARES = Shares(cpus_per_worker=1, worker_threads=1, shard_threads=1)
Sums = tuple[PairSums, list[tuple[torch.Tensor, int]]]


@dataclass(frozen=True)
class Both:
    """Shards and local ranges, and the sums that either gave before it had proxies."""

    ranges: tuple[ShardedRanges, LocalRanges]
    sums: list[Sums]
    cycle: Cycle
    actors: list[Any]

    def __iter__(self) -> Iterator[ShardedRanges | LocalRanges]:
        return iter(self.ranges)


def sums_of(ranges: Ranges) -> Sums:
    affine = 0.9 * identity_map(DIM)
    gradients = [ranges.pair_gradient(affine, 7, part, 3) for part in range(3)]
    return ranges.pair_sums(1.1 * identity_map(DIM)), gradients


def config_of(data: DataSet, shards: int) -> RunConfig:
    config = make_config(resources={"label_shards": shards})
    return config.model_copy(update={"data": str(data.path)})


@pytest.fixture(scope="module")
def embeddings(data: DataSet) -> np.ndarray:
    rows, _ = split_rows(data, config_of(data, 1))
    rng = np.random.default_rng(5)
    return rng.standard_normal((len(rows), DIM)).astype(np.float16)


@pytest.fixture(scope="module")
def both(cluster: None, data: DataSet, embeddings: np.ndarray) -> Iterator[Both]:
    """Three shards and three local ranges after the same cycle."""
    config = config_of(data, 3)
    rng = np.random.default_rng(6)
    weight = rng.standard_normal((NUM_LABELS, DIM)).astype(np.float32)
    bias = rng.standard_normal(NUM_LABELS).astype(np.float32)
    with LabelShards(config, SHARES) as shards:
        names = shards.names()
        actors = [ray.get_actor(name, namespace=NAMESPACE) for name in names]
        cuts = ray.get([actor.ping.remote() for actor in actors])
        assert [low for low, _ in cuts[1:]] == [high for _, high in cuts[:-1]]
        assert (cuts[0][0], cuts[-1][1]) == (0, NUM_LABELS)
        assert sorted(shard_actors()) == sorted(names)
        made = ShardedRanges(names), local_ranges(data, config, 3)
        sums: list[Sums] = []
        cycles: list[Cycle] = []
        for ranges in made:
            cycle = begin_cycle(ranges, 0, embeddings, block=BLOCK)
            cycles.append(cycle)
            affine, _ = fit(ranges, config.proxy, DIM, seed=0)
            sums.append(sums_of(ranges))  # before proxies take the place of the centroids
            cycle.set_proxies(affine).index_rows(weight, bias)
        yield Both(made, sums, cycles[0], actors)
    assert no_shard_stays()


def test_pair_sums(both: Both) -> None:
    sharded, local = (one[0] for one in both.sums)
    assert torch.equal(sharded.gram, local.gram)
    assert torch.equal(sharded.cross, local.cross)
    assert (sharded.loss, sharded.pairs) == (local.loss, local.pairs)
    assert sharded.pairs > 900


def test_pair_gradients(both: Both) -> None:
    for sharded, local in zip(*(one[1] for one in both.sums), strict=True):
        assert torch.equal(sharded[0], local[0])
        assert sharded[1] == local[1] > 0


def test_saved_proxies(both: Both, tmp_path: Path) -> None:
    for name, ranges in zip(("sharded", "local"), both, strict=True):
        (tmp_path / name).mkdir()
        ranges.save_proxies(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "sharded").glob("*.safetensors"))
    assert files == [f"proxies-{1000 * number:05d}.safetensors" for number in range(3)]
    for file in files:
        ours, theirs = (load_file(tmp_path / name / file) for name in ("sharded", "local"))
        np.testing.assert_array_equal(ours["proxies"], theirs["proxies"])
        norms = np.linalg.norm(ours["proxies"], axis=1)
        assert np.all(np.isclose(norms, 1.0, atol=1e-5) | (norms == 0))


@pytest.mark.parametrize("sources", [("proxy",), ("classifier",), ("proxy", "classifier")])
@pytest.mark.parametrize(("scores", "given"), [(False, False), (True, False), (True, True)])
def test_searches(
    both: Both, embeddings: np.ndarray, sources: tuple[str, ...], scores: bool, given: bool
) -> None:
    labels = np.random.default_rng(7).integers(-1, NUM_LABELS, (540, 7), dtype=np.int32)
    # More blocks than a worker has under way at once.
    parts = [slice(first, first + 60) for first in range(0, 540, 60)]
    blocks = [(part.start, embeddings[part], labels[part] if given else None) for part in parts]
    sharded, local = (list(ranges.search(iter(blocks), 10, sources, scores)) for ranges in both)
    assert [key for key, _ in sharded] == [key for key, _ in local] == [key for key, *_ in blocks]
    for (_, ours), (_, theirs) in zip(sharded, local, strict=True):
        assert_same(ours, theirs)
        assert set(ours.labels) == {*sources, *([GIVEN] if given else [])}
        assert all(ours.labels[source].shape == (60, 10) for source in sources)
    if given:
        answered = [found.labels[GIVEN] for _, found in sharded]
        assert np.array_equal(np.concatenate(answered), labels)


def assert_same(ours: Found, theirs: Found) -> None:
    for one, other in zip(
        (ours.labels, ours.cosines, ours.logits),
        (theirs.labels, theirs.cosines, theirs.logits),
        strict=True,
    ):
        assert one.keys() == other.keys()
        for source in one:
            np.testing.assert_array_equal(one[source], other[source])


def test_memory_counts_every_shard(both: Both) -> None:
    assert both.ranges[0].peak_memory() > 3 * 50 * 2**20


def test_shards_end_when_their_run_fails(cluster: None, data: DataSet) -> None:
    before = set(shard_actors())

    def fail() -> None:
        with LabelShards(config_of(data, 2), SHARES) as shards:
            shards.names()
            assert len(set(shard_actors()) - before) == 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert no_shard_stays(before)


def test_a_shard_that_cannot_start_says_why(cluster: None, data: DataSet, tmp_path: Path) -> None:
    gone = config_of(data, 2).model_copy(update={"data": str(tmp_path / "nowhere")})
    before = set(shard_actors())
    with (
        pytest.raises(TrainingError, match=r"(?s)did not start.*no data-set folder .*nowhere"),
        LabelShards(gone, SHARES) as shards,
    ):
        shards.names()
    assert no_shard_stays(before)


def test_documents_are_searched_for_by_number(both: Both, embeddings: np.ndarray) -> None:
    """The shards have read the embeddings themselves."""
    numbers = np.random.default_rng(8).permutation(len(embeddings))[:300]
    sources = ("proxy", "classifier")
    blocks = [(at, numbers[at : at + 60], None) for at in range(0, 300, 60)]
    expected = [(at, embeddings[some], None) for at, some, _ in blocks]
    by_number = list(both.ranges[0].search(iter(blocks), 10, sources, True))
    by_row = list(both.ranges[1].search(iter(expected), 10, sources, True))
    for (key, ours), (other, theirs) in zip(by_number, by_row, strict=True):
        assert key == other
        assert_same(ours, theirs)


def test_embeddings_of_other_documents_are_refused(both: Both, embeddings: np.ndarray) -> None:
    with pytest.raises(ray.exceptions.RayTaskError, match="10 embeddings of 540 documents"):
        begin_cycle(both.ranges[0], 1, embeddings[:10])
    both.ranges[0].bring(both.cycle.state)  # from the files: what was refused is not half there


# ---- a shard that dies ----


def pids(actors: list[Any]) -> list[int]:
    return ray.get([actor.pid.remote() for actor in actors])


def test_a_killed_shard_comes_back_with_its_state(both: Both, embeddings: np.ndarray) -> None:
    """Ray starts it anew and repeats the call; it reads everything else from the run's files."""
    numbers = np.arange(len(embeddings))
    blocks = [(at, numbers[at : at + 60], None) for at in range(0, len(embeddings), 60)]
    sources = ("proxy", "classifier")
    before = list(both.ranges[0].search(iter(blocks), 10, sources, True))
    held = pids(both.actors)
    searching = both.ranges[0].search(iter(blocks), 10, sources, True)
    found = [next(searching)]
    os.kill(held[1], signal.SIGKILL)
    found += list(searching)
    assert [pid for pid, now in zip(held, pids(both.actors), strict=True) if pid != now] == held[
        1:2
    ]
    for (key, ours), (other, theirs) in zip(found, before, strict=True):
        assert key == other
        assert_same(ours, theirs)


def test_a_shard_without_its_files_refuses(both: Both, embeddings: np.ndarray) -> None:
    state = both.cycle.state
    gone = replace(state, affine=state.embeddings.path.with_name("affine-0009.safetensors"))
    both.ranges[0].follow(gone)
    with pytest.raises(StaleError, match=r"affine-0009.* the map of cycle 0 cannot be read"):
        list(both.ranges[0].search([(0, embeddings[:5], None)], 3, ("proxy",), False))
    both.ranges[0].bring(state)
    assert len(list(both.ranges[0].search([(0, embeddings[:5], None)], 3, ("proxy",), False))) == 1


def test_an_earlier_cycle_is_refused(both: Both, embeddings: np.ndarray) -> None:
    later = begin_cycle(both.ranges[0], 3, embeddings)
    both.ranges[0].follow(both.cycle.state)
    with pytest.raises(StaleError, match=r"hold cycle 3, but were asked for cycle 0"):
        list(both.ranges[0].search([(0, embeddings[:5], None)], 3, ("proxy",), False))
    both.ranges[0].follow(later.state)
    assert both.ranges[0].pair_sums(identity_map(DIM)).pairs > 900
