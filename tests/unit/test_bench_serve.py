"""The load of the serving benchmark, against a real HTTP server without a model."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_xml.serve_app import App
from ray_xml.serve_batch import Batcher
from ray_xml.serve_counts import Counts
from ray_xml.serve_socket import listen
from ray_xml.tagger import Tag

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import serve_load
from serve_load import HOSTILE, Load, measured, request

http = pytest.importorskip(
    "ray_xml.serve_http",
    exc_type=ImportError,
    reason="Ray Serve brings uvicorn: pip install 'ray-xml[serve]'",
)
REQUESTS = [request(b'{"text": "a"}'), request(b'{"text": "b", "top_k": 3}')]


class One:
    def tag(self, texts: list[str], top_k: int) -> list[list[Tag]]:
        return [[Tag(0, text, 0.5, 0.5)] for text in texts]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    counts = Counts(tmp_path_factory.mktemp("counts"))
    batcher = Batcher(One(), counts)  # type: ignore[arg-type]
    server = http.http_server(App(batcher, counts, "a model"))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()
    batcher.close()


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
