"""The load of the serving benchmark, against a real HTTP server without a model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi import One, over_http, serve_http

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import serve_load
from serve_load import HOSTILE, Load, measured, request

serve_http()
REQUESTS = [request(b'{"text": "a"}'), request(b'{"text": "b", "top_k": 3}')]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with over_http(One(), tmp_path_factory.mktemp("counts")) as found:
        yield found


def test_every_hostile_request_is_refused_among_good_ones(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_load, "_HOSTILE_PAUSE", 0.0)
    line = measured(port, REQUESTS, 3, 2.0)
    assert line["failures"] == {}
    assert line["bad and not refused"] == {}
    assert int(str(line["refused"])) >= len(HOSTILE)
    assert float(str(line["requests a second"])) > 10


def test_failures_are_counted(port: int) -> None:
    load = Load(port, [request(b"{")])
    asyncio.run(load.run(2, 0.3, hostile=False))
    assert set(load.failures) == {"400"}
    assert load.failures["400"] == len(load.seconds) > 0
    assert not load.refused
