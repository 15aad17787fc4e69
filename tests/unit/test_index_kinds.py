"""The approximate kinds, the searches behind the exact one, and what they keep in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ray_xml.coarse_search import CoarseSearch
from ray_xml.config import build_config
from ray_xml.errors import ConfigError
from ray_xml.exact_search import BlockSearch, TorchSearch
from ray_xml.label_index import IndexConfig, LabelIndex
from ray_xml.shortlist import ShortlistConfig

ROOT = Path(__file__).parents[2]
KINDS = ["pq", "ivf"]


def clustered(seed: int, n: int, dim: int) -> np.ndarray:
    """float32 [n, dim] unit vectors around 40 centres, which are the same for every seed."""
    centres = np.random.default_rng(0).standard_normal((40, dim))
    rng = np.random.default_rng(seed)
    near = centres[rng.integers(0, 40, n)] + 0.7 * rng.standard_normal((n, dim))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def noise(seed: int, n: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def made(vectors: np.ndarray, **settings: Any) -> LabelIndex:
    return LabelIndex(np.arange(len(vectors), dtype=np.int32), vectors, IndexConfig(**settings))


def brute_force(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("dim", [24, 25])
def test_most_of_the_best_are_found(kind: str, storage: str, dim: int) -> None:
    vectors = clustered(1, 5000, dim).astype(storage)
    vectors[100:120] = vectors[100]  # ties
    queries = clustered(2, 60, dim)
    index = made(vectors, index=kind, probes=30)
    assert index.kind == kind
    assert index.vectors is vectors
    places, scores = index.search(queries, 50)
    expected = brute_force(queries, vectors, 50)
    shares = [np.isin(a, b).mean() for a, b in zip(expected, places, strict=True)]
    assert np.mean(shares) >= 0.95
    assert index.recall(queries, 50) == pytest.approx(np.mean(shares), abs=2e-3)
    # What is found has the exact search's scores, best first, ties to the lower label.
    np.testing.assert_array_equal(scores, index.scores_at(queries, places))
    order = np.lexsort((places, -scores), axis=1)
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(50), order.shape))
    # Half a byte a pair of numbers beside the vectors, and for ivf the lists.
    codes = 5000 * -(-dim // 2) // 2
    assert codes <= index.nbytes - vectors.nbytes <= codes + 5000 * 10 + 71 * 26 * 4


@pytest.mark.parametrize("kind", KINDS)
def test_fetching_everything_is_exact(kind: str) -> None:
    vectors, queries = noise(1, 1500, 8).round(), noise(2, 1100, 8).round()  # many ties
    every = made(vectors, index=kind, refine=150, probes=1000)
    flat = made(vectors, index="flat")
    for one, other in zip(every.search(queries, 10), flat.search(queries, 10), strict=True):
        np.testing.assert_array_equal(one, other)
    assert every.checked(queries, 10, 1.0) == {kind: 1.0}
    assert every.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_mean_and_lengths_leave_recall_alone(kind: str) -> None:
    # As classifier rows have them: an extra number, the bias, much the same in all.
    rng = np.random.default_rng(3)
    vectors = clustered(1, 5000, 25) * rng.uniform(0.8, 1.2, (5000, 1)).astype(np.float32)
    vectors[:, -1] = -8 + 0.1 * vectors[:, -1]
    queries = clustered(2, 60, 25)
    queries[:, -1] = 1
    assert made(vectors, index=kind, probes=30).recall(queries, 50) >= 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_vectors_make_the_same_index(kind: str) -> None:
    vectors, queries = noise(1, 3000, 16), noise(2, 30, 16)
    one, other = (made(vectors, index=kind, probes=4).search(queries, 20) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("kind", KINDS)
def test_below_the_floor_the_search_becomes_exact(kind: str) -> None:
    vectors, queries = noise(1, 4000, 64), noise(2, 40, 64)
    index = made(vectors, index=kind, refine=1, probes=2)
    flat = made(vectors, index="flat")
    wanted = flat.search(queries, 30)[0]
    found = index.search(queries, 30)[0]
    share = np.mean([np.isin(a, b).mean() for a, b in zip(wanted, found, strict=True)])
    assert share < 0.7
    assert index.checked(queries, 30, 0.0) == {kind: pytest.approx(share)}
    assert index.kind == kind
    tried = index.checked(queries, 30, 0.95)
    assert tried[kind] == pytest.approx(share)
    assert list(tried) == (["ivf", "pq"] if kind == "ivf" else ["pq"])
    assert (index.kind, index.nbytes) == ("flat", vectors.nbytes)
    np.testing.assert_array_equal(index.search(queries, 30)[0], wanted)
    assert index.checked(queries, 30, 1.0) == {}


def test_lists_that_miss_too_much_become_a_scan_of_all_codes() -> None:
    vectors, queries = noise(1, 4000, 64), noise(2, 40, 64)
    index = made(vectors, index="ivf", refine=30, probes=2)
    tried = index.checked(queries, 30, 0.9)
    assert tried["ivf"] < 0.9 <= tried["pq"]
    assert index.kind == "pq"
    assert index.recall(queries, 30) == tried["pq"]
    assert index.nbytes < vectors.nbytes + 4000 * 64


def test_lists_that_hold_fewer_than_asked_for() -> None:
    vectors, queries = clustered(1, 1100, 8), clustered(2, 20, 8)
    places, scores = made(vectors, index="ivf", probes=1).search(queries, 600)
    assert (places[:, 0] >= 0).all()
    assert (places[:, -1] == -1).all()
    np.testing.assert_array_equal(scores == -np.inf, places == -1)
    for row in places:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


def test_no_queries_and_more_than_there_are() -> None:
    for kind in KINDS:
        index = made(clustered(1, 1100, 8), index=kind, probes=1000)
        assert index.search(np.zeros((0, 8), np.float32), 5)[0].shape == (0, 5)
        places = index.search(clustered(2, 1, 8), 1200)[0]
        assert sorted(places[0, :1100].tolist()) == list(range(1100))
        assert (places[0, 1100:] == -1).all()


def test_candidates_come_from_a_quarter_byte_a_number() -> None:
    vectors, queries = clustered(1, 3000, 32), clustered(2, 9, 32)
    found = CoarseSearch(vectors, "pq", 1).search(queries, 20)
    assert found.shape == (9, 20)
    expected = brute_force(queries, vectors, 200)
    assert all(np.isin(a, b).mean() > 0.9 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [1, 30, 300])
def test_torch_searches_as_faiss_does(
    storage: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray_xml.exact_search.BLOCK", 64)
    monkeypatch.setattr("ray_xml.exact_search._QUERIES", 7)
    vectors, queries = clustered(1, 300, 16).astype(storage), clustered(2, 20, 16)
    scores, places = TorchSearch(vectors, "cpu").search(queries, k)
    wanted, at = BlockSearch(vectors).search(queries, k)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    np.testing.assert_array_equal(places, at)
    np.testing.assert_array_equal(at, brute_force(queries, vectors, k))


def test_which_kind_and_storage() -> None:
    auto = IndexConfig()
    assert [auto.kind(n, gpu=False) for n in (0, 200_000, 200_001)] == ["flat", "flat", "ivf"]
    assert auto.kind(3_000_000, gpu=True) == "flat"
    assert [auto.dtype(n) for n in (200_000, 200_001)] == [np.float32, np.float16]
    assert [IndexConfig(index="pq").kind(n, gpu=False) for n in (1023, 1024)] == ["flat", "pq"]
    assert IndexConfig(storage="float16").dtype(3) == np.float16
    assert IndexConfig(storage="float32").dtype(3_000_000) == np.float32
    assert made(noise(0, 1023, 4), index="ivf").kind == "flat"


def test_a_shortlist_s_config_is_its_index_s() -> None:
    config = build_config(ShortlistConfig, {"index": "pq", "refine": 2, "size": 7}, origin="test")
    assert isinstance(config, IndexConfig)
    assert (config.index, config.refine, config.size) == ("pq", 2, 7)
    with pytest.raises(ConfigError, match=r"index: .*'hnsw'"):
        build_config(ShortlistConfig, {"index": "hnsw"}, origin="test")
    with pytest.raises(ConfigError, match="did you mean 'probes'"):
        build_config(ShortlistConfig, {"probe": 3}, origin="test")


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_xml.label_index.faiss_has_gpu", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"resources\.device=cpu"):
        LabelIndex(np.arange(9, dtype=np.int32), noise(0, 9, 4), gpu=True)


_MEASURED = """
import resource
import numpy as np
from ray_xml.label_index import IndexConfig, LabelIndex

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

vectors = np.zeros((800_000, 128), np.float16)
some = np.random.default_rng(0).standard_normal((1000, 128)).astype(np.float16)
for first in range(0, 800_000, 1000):
    vectors[first : first + 1000] = some
queries = np.ones((64, 128), np.float32)
flat = IndexConfig(index="flat")
LabelIndex(np.arange(20_000, dtype=np.int32), vectors[:20_000], flat).search(queries, 100)
before = peak()
index = LabelIndex(np.arange(800_000, dtype=np.int32), vectors, flat)
index.search(queries, 100)
print(peak() - before)
"""


def test_an_exact_search_in_float16_keeps_no_second_copy() -> None:
    # The copy would be 391 MiB, 195 even in float16.
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(done.stdout) < 60


def test_few_queries_are_searched_by_matrix_products() -> None:
    # FAISS 1.15 by itself takes 427 queries of 300 numbers for too few, at a fifth of the speed.
    assert faiss.cvar.distance_compute_blas_threshold <= 2400
