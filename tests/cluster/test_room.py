"""What a run takes of a cluster that is partly in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from processes import wait_for

from ray_xml.cluster.placement import cluster_nodes, free_nodes
from ray_xml.cluster.room import taken
from ray_xml.run_sections import ResourcesConfig

OPEN = ResourcesConfig()


@contextmanager
def holding(cpus: float) -> Iterator[None]:
    """Somebody else has so many CPUs."""

    class Holder:
        def here(self) -> bool:
            return True

    actor: Any = ray.remote(Holder).options(num_cpus=cpus).remote()
    assert ray.get(actor.here.remote())
    assert wait_for(lambda: free_nodes()[0].cpus == 2 - cpus, 20)
    yield
    ray.kill(actor)
    assert wait_for(lambda: free_nodes() == cluster_nodes(), 20)


def test_all_that_is_free(cluster: None) -> None:
    said: list[str] = []
    assert free_nodes() == cluster_nodes()
    found = taken(OPEN, 80, "here", said.append)
    assert (found.workers, found.label_shards, found.cpus_per_worker) == (2, 2, None)
    assert found.fewest_workers == 1  # it goes on when nodes are lost
    assert said == ["taking 2 workers, 2 label shards; free on here: 2 CPUs"]
    assert taken(OPEN, 1, "here", said.append).workers == 1


def test_what_others_hold_is_left_to_them(cluster: None) -> None:
    said: list[str] = []
    with holding(1):
        found = taken(OPEN, 80, "here", said.append)
        assert (found.workers, found.label_shards, found.cpus_per_worker) == (1, 1, 1.0)
        assert said == ["taking 1 worker of 1 CPU, 1 label shard; free on here: 1 CPU"]
        settled = OPEN.model_copy(update={"workers": 3, "label_shards": 1})
        assert taken(settled, 80, "here", said.append) is settled
        assert len(said) == 1
    with holding(2):
        found = taken(OPEN, 80, "here", said.append)
        assert found.workers == 2
        assert said[1] == "nothing of here is free; waiting for what others hold"
