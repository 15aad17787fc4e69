"""The arithmetic of a search: whether all trials of a time fit, against trying all placements."""

from __future__ import annotations

import itertools

import pytest

from ray_xml.autosize import NodeSize
from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig
from ray_xml.tune_budget import DRIVER_CPUS, budget


def resources(**keys: float) -> ResourcesConfig:
    return ResourcesConfig.model_validate({"workers": 1, "label_shards": 1, **keys})


def stands_still(nodes: list[float], concurrent: int, workers: int, each: float) -> bool:
    """Whether some placement of the drivers leaves too little room for all the workers."""
    for places in itertools.product(range(len(nodes)), repeat=concurrent):
        left = list(nodes)
        for place in places:
            left[place] -= DRIVER_CPUS
        if sum(int(cpus / each + 1e-6) for cpus in left) < concurrent * workers:
            return True
    return False


@pytest.mark.parametrize("cpus", [[2], [4], [2, 2], [4, 1], [3, 2, 2]])
@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("each", [None, 0.5, 0.9, 1, 2])
def test_what_is_accepted_cannot_stand_still(
    cpus: list[float], workers: int, each: float | None
) -> None:
    wanted = (
        resources(workers=workers, cpus_per_worker=each) if each else resources(workers=workers)
    )
    nodes = [NodeSize(one) for one in cpus]
    for concurrent in (None, 1, 2, 3, 4):
        try:
            made = budget(wanted, nodes, 8, concurrent)
        except ResourceError:
            continue
        assert concurrent is None or made.concurrent == concurrent
        assert each is None or made.cpus_per_worker == each
        assert not stands_still(cpus, made.concurrent, workers, made.cpus_per_worker)


def test_as_many_trials_as_fit() -> None:
    assert budget(resources(), [NodeSize(2)], 16, None).concurrent == 2
    assert budget(resources(workers=2), [NodeSize(2)], 16, None).concurrent == 1
    assert budget(resources(workers=2), [NodeSize(16)], 16, None).concurrent == 8
    assert budget(resources(), [NodeSize(16)], 3, None).concurrent == 3


def test_workers_get_what_the_drivers_leave() -> None:
    assert budget(resources(workers=2), [NodeSize(2)], 4, 1).cpus_per_worker == 0.95
    assert budget(resources(), [NodeSize(2)], 4, 1).cpus_per_worker == 1
    assert budget(resources(), [NodeSize(2)], 4, 2).cpus_per_worker == 0.9
    assert budget(resources(workers=2), [NodeSize(8)], 4, 1).cpus_per_worker == 3


def test_a_plan_that_could_stand_still_is_refused_with_its_arithmetic() -> None:
    with pytest.raises(ResourceError) as caught:
        budget(resources(workers=2, cpus_per_worker=1), [NodeSize(4)], 8, 2)
    assert "2 trials at a time × (0.1 CPU for the driver + 2 workers × 1 CPU) = 4.2 of 4 CPUs" in (
        str(caught.value)
    )
    assert "3 of 4 workers have a place" in str(caught.value)
    assert "tune.concurrent" in str(caught.value)
    with pytest.raises(ResourceError, match="1 trial at a time"):
        budget(resources(workers=3), [NodeSize(2)], 8, None)


def test_gpus_count_as_well() -> None:
    wanted = resources(gpus_per_worker=0.5, gpus_per_shard=0.5)
    nodes = [NodeSize(16, 2.0)]
    assert budget(wanted, nodes, 16, None).concurrent == 2
    with pytest.raises(ResourceError, match="GPUs: 3 × "):
        budget(wanted, nodes, 16, 3)
