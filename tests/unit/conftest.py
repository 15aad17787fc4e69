"""Fixtures of tests with files at URLs."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from ray_xml import data_url


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what comes from URLs, empty."""
    monkeypatch.setenv(data_url.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that pyarrow knows, and one that fsspec knows."""
    name = f"set-{uuid.uuid4().hex[:8]}"
    return (tmp_path / name).as_uri() if request.param == "file" else f"memory://{name}"
