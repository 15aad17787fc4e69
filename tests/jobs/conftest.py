"""Tests that start whole commands with a Ray of their own and take minutes."""

from __future__ import annotations

import os

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

from pathlib import Path

import pytest

_SLOW = pytest.mark.skipif(
    os.environ.get("RAY_XML_SLOW") != "1", reason="takes minutes; RAY_XML_SLOW=1 runs it"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(_SLOW)
            item.add_marker(pytest.mark.timeout(1800))
