"""How pytest meets Ray in this folder's tests."""

from __future__ import annotations

import os

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from pathlib import Path

import pytest

# Ray's own: Ray Train builds a ray.data context, whose defaults ray.data calls deprecated.
_RAY_WARNS = "ignore::DeprecationWarning:ray.data.context"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(_RAY_WARNS))
            item.add_marker(pytest.mark.timeout(600))  # fixtures count, and machines are shared
