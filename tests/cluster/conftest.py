"""One local Ray cluster for all tests of this folder, and the runs that several of them look at."""

from __future__ import annotations

import os

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from small_runs import Run, both_config, start

from ray_xml.cluster.session import NAMESPACE, set_environment
from ray_xml.store import DataSet

# Ray's own: Ray Train builds a ray.data context, whose defaults ray.data calls deprecated.
_RAY_WARNS = "ignore::DeprecationWarning:ray.data.context"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(_RAY_WARNS))
            item.add_marker(pytest.mark.timeout(600))  # fixtures count, and machines are shared


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A started Ray of two CPUs; ``session.session`` uses it as it is."""
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
    folder = tmp_path_factory.mktemp("straight") / "straight"
    return start(both_config(data, folder, workers=2, shards=3, epochs=16, keep=16))
