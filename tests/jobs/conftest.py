"""A cluster of its own, and jobs submitted to it: minutes, so only when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not config.getoption("--jobs"):
            item.add_marker(pytest.mark.skip(reason="minutes: needs --jobs, as make test-cluster"))
