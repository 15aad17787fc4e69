"""What a run takes where its config leaves it open."""

from __future__ import annotations

from typing import Any

import pytest

from ray_xml.autosize import NodeSize, autosized, of_a_trial
from ray_xml.run_sections import ResourcesConfig

MANY = 10_000


def of(nodes: list[tuple[float, float]], most: int = MANY, **said: Any) -> dict[str, Any]:
    sizes = [NodeSize(*node) for node in nodes]
    found = autosized(ResourcesConfig(**said), sizes, most)
    keys = ("workers", "label_shards", "gpus_per_worker", "gpus_per_shard")
    return {key: getattr(found, key) for key in keys if getattr(found, key)}


@pytest.mark.parametrize(
    ("cpus", "workers"), [(1, 1), (2, 2), (4, 2), (8, 2), (12, 3), (16, 4), (64, 16), (0.5, 1)]
)
def test_workers_of_a_node_with_cpus_alone(cpus: float, workers: int) -> None:
    assert of([(cpus, 0)]) == {"workers": workers, "label_shards": workers}
    assert of([(cpus, 0)] * 3) == of([(cpus, 0)] * 3, label_shards=0)


def test_nodes_add_up_and_the_data_bounds_them() -> None:
    assert of([(16, 0), (4, 0), (0, 0)]) == {"workers": 6, "label_shards": 6}
    assert of([(16, 0), (4, 0)], most=5) == {"workers": 5, "label_shards": 5}
    assert of([]) == {"workers": 1, "label_shards": 1}


def test_each_gpu_has_a_worker_and_a_shard() -> None:
    halves = {"gpus_per_worker": 0.5, "gpus_per_shard": 0.5}
    assert of([(16, 4), (16, 2)]) == {"workers": 6, "label_shards": 6, **halves}
    assert of([(16, 4), (16, 0)]) == {"workers": 4, "label_shards": 4, **halves}
    assert of([(2, 8)]) == {"workers": 2, "label_shards": 2, **halves}
    assert of([(16, 4)], device="cpu") == {"workers": 4, "label_shards": 4}
    assert of([(16, 0.5)]) == {"workers": 4, "label_shards": 4}  # the rest is another's


def test_what_is_said_stays() -> None:
    assert of([(16, 0)], workers=3) == {"workers": 3, "label_shards": 3}
    assert of([(16, 0)], label_shards=7) == {"workers": 4, "label_shards": 7}
    assert of([(16, 0)], cpus_per_worker=1.0) == {"workers": 16, "label_shards": 16}
    assert of([(16, 4)], workers=2, label_shards=1) == {"workers": 2, "label_shards": 1}
    said = {"gpus_per_worker": 1.0}
    assert of([(16, 4)], **said) == {"workers": 4, "label_shards": 4, **said}
    said = {"gpus_per_worker": 0.75, "gpus_per_shard": 0.25}
    assert of([(16, 4)], **said) == {"workers": 4, "label_shards": 4, **said}
    found = of([(16, 4)], **said, label_shards=4)
    assert found == {"workers": 4, "label_shards": 4, **said}
    said = {"gpus_per_shard": 1.0}
    assert of([(16, 4)], **said, label_shards=4) == {"workers": 16, "label_shards": 4, **said}


def test_a_trial_takes_one_of_each() -> None:
    found = of_a_trial(ResourcesConfig(), gpus=False)
    assert (found.workers, found.label_shards, found.gpus_per_worker) == (1, 1, 0)
    found = of_a_trial(ResourcesConfig(), gpus=True)
    assert (found.workers, found.label_shards, found.gpus_per_worker) == (1, 1, 0.5)
    said = ResourcesConfig(workers=2, label_shards=3)
    assert of_a_trial(said, gpus=True) == said
