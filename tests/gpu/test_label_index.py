"""The label index on a GPU finds what it finds on the CPU. Skipped where there is no GPU.

python -m pytest tests/gpu
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ray_xml.exact_search import BlockSearch, TorchSearch, faiss_has_gpu
from ray_xml.label_index import IndexConfig, LabelIndex

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def unit(seed: int, n: int, dim: int = 48) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_torch_searches_as_the_cpu_does(storage: str) -> None:
    vectors, queries = unit(0, 40_000).astype(storage), unit(1, 5000)
    scores, places = TorchSearch(vectors).search(queries, 50)
    wanted, at = BlockSearch(vectors).search(queries, 50)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert (places == at).mean() > 0.999  # the rest are equal up to rounding


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("k", [5, 100, 3000])
def test_the_flat_kind_is_the_cpu_s(storage: str, k: int) -> None:
    labels, vectors = np.arange(20_000, dtype=np.int32), unit(0, 20_000).astype(storage)
    vectors[10_000:10_200] = vectors[3]  # ties
    queries = unit(1, 40)
    here = LabelIndex(labels, vectors, gpu=False).search(queries, k)
    there = LabelIndex(labels, vectors, gpu=True)
    for one, other in zip(here, there.search(queries, k), strict=True):
        np.testing.assert_array_equal(one, other)
    assert there.vectors is vectors
    assert there.nbytes == 2 * vectors.nbytes


@pytest.mark.parametrize("kind", ["pq", "ivf"])
def test_the_approximate_kinds(kind: str) -> None:
    labels, vectors, queries = np.arange(9000, dtype=np.int32), unit(0, 9000), unit(1, 40)
    settings = IndexConfig(index=kind, probes=80)
    index = LabelIndex(labels, vectors, settings, gpu=True)
    assert index.kind == ("ivf" if kind == "ivf" and faiss_has_gpu() else "flat")
    assert index.recall(queries, 20) >= 0.95
    index.checked(queries, 20, 1.1)
    assert index.kind == "flat"
    assert index.recall(queries, 20) == 1.0
