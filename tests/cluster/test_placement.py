"""Where label shards go, by what the nodes have; Ray itself is not asked."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from ray_xml.cluster.placement import Node, place_shards, shard_threads, worker_places
from ray_xml.run_sections import ResourcesConfig


def nodes(*sizes: tuple[float, float]) -> list[Node]:
    return [Node(f"n{i}", f"host-{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(sizes)]


def counts(cluster: list[Node], **keys: object) -> list[int]:
    found = Counter(n.id for n in place_shards(cluster, ResourcesConfig.model_validate(keys)))
    return [found[node.id] for node in cluster]


@pytest.mark.parametrize(
    ("sizes", "keys", "expected"),
    [
        ([(8, 0)] * 3, {"label_shards": 3}, [1, 1, 1]),
        ([(8, 0)] * 3, {"label_shards": 7}, [3, 2, 2]),
        ([(16, 0), (8, 0), (8, 0)], {"label_shards": 4}, [2, 1, 1]),
        ([(32, 0), (4, 0), (4, 0)], {"label_shards": 3}, [3, 0, 0]),
        ([(8, 0)] * 3, {"label_shards": 7, "placement": "pack"}, [7, 0, 0]),
        # Shards with GPUs go where the GPUs are, whatever has more CPUs.
        ([(64, 0), (8, 1), (8, 1)], {"label_shards": 4, "gpus_per_shard": 0.25}, [0, 2, 2]),
        ([(64, 0), (8, 1), (8, 4)], {"label_shards": 5, "gpus_per_shard": 1}, [0, 1, 4]),
        (
            [(8, 2), (8, 2)],
            {"label_shards": 3, "gpus_per_shard": 1, "placement": "pack"},
            [2, 1],
        ),
    ],
)
def test_where_shards_go(
    sizes: list[tuple[float, float]], keys: dict[str, object], expected: list[int]
) -> None:
    assert counts(nodes(*sizes), **keys) == expected


def test_spread_shards_have_as_many_threads_as_any_placement_could_give() -> None:
    for sizes, shards in (((7, 3, 2), 4), ((16, 16, 4), 3), ((5, 9, 1), 5), ((1, 1), 3)):
        cluster = nodes(*((float(cpus), 0.0) for cpus in sizes))
        best = max(
            shard_threads(list(choice)) for choice in product(cluster, repeat=shards)
        )  # every placement there is
        found = place_shards(cluster, ResourcesConfig(label_shards=shards))
        assert shard_threads(found) == best, (sizes, shards)


def test_workers_beside_shards() -> None:
    cluster = nodes((8, 1), (8, 1))
    placed = place_shards(cluster, ResourcesConfig(label_shards=2, gpus_per_shard=0.25))
    assert worker_places(cluster, placed, 4, 0.75, 0.25) == 2
    assert worker_places(cluster, placed, 4, 0.8, 0.25) == 0
    assert worker_places(cluster, placed, 4, 0, 0.25) == 4
