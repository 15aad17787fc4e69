"""Fixtures that several test files share; ``made`` and ``groups`` do the work."""

from __future__ import annotations

import os

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from groups import Groups
from made import make_data_set

from ray_xml.store import DataSet

if TYPE_CHECKING:
    from small_runs import Run

# Seconds for a test of the folders that start Ray: fixtures count, and machines are shared.
_WITH_RAY = {"cluster": 600, "faults": 900, "jobs": 1500}
# Ray's own: Ray Train builds a ray.data context, whose defaults ray.data calls deprecated.
_RAY_WARNS = "ignore::DeprecationWarning:ray.data.context"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        seconds = _WITH_RAY.get(item.path.parent.name)
        if seconds is not None:
            item.add_marker(pytest.mark.filterwarnings(_RAY_WARNS))
            item.add_marker(pytest.mark.timeout(seconds))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--jobs", action="store_true", help="also submit jobs to a cluster: minutes")


@pytest.fixture(autouse=True)
def _no_ray_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pure core must work where ray cannot be imported."""
    if "unit" in request.path.parts:
        monkeypatch.setitem(sys.modules, "ray", None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and the order of sums stays the same."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """The made data set: 600 train and 150 test documents, 300 features, 80 labels."""
    path: Path = tmp_path_factory.mktemp("made") / "data"
    return make_data_set(path)


@pytest.fixture(scope="session")
def groups() -> Iterator[Groups]:
    """Up to three processes for real gloo groups."""
    made = Groups(3)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A started Ray of two CPUs; ``session.session`` uses it as it is."""
    import ray

    from ray_xml.cluster.session import NAMESPACE, set_environment

    set_environment()
    ray.init(
        address="local",
        num_cpus=2,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level="ERROR",
        include_dashboard=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def straight(cluster: None, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """16 epochs without a stop on 2 workers and 3 shards, every checkpoint and shortlist kept."""
    from small_runs import both_config, start

    folder = tmp_path_factory.mktemp("straight") / "straight"
    return start(both_config(data, folder, workers=2, shards=3, epochs=16, keep=16))
