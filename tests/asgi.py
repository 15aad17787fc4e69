"""The server's application: asked without a server, or behind a real one without Ray."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ray_xml.serve_app import App
from ray_xml.serve_batch import Batcher
from ray_xml.serve_counts import Counts
from ray_xml.serve_socket import listen
from ray_xml.tagger import Tag

JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What came back; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def asked(
    app: App,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: dict[str, str] | None = None,
    *,
    hangs_up: bool = False,
) -> Answer | None:
    """One request.

    Args:
        body: in one part or several.
        hangs_up: after the body's parts, before its end.
    """
    parts = [body] if isinstance(body, bytes) else list(body)
    events: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": hangs_up or at + 1 < len(parts)}
        for at, part in enumerate(parts)
    ]
    events.append({"type": "http.disconnect"})
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    await app(scope, receive, send)
    if not sent:
        return None
    start, end = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    assert int(found["content-length"]) == len(end["body"])
    return Answer(start["status"], found, end["body"])


def ask(
    app: App,
    method: str,
    path: str,
    body: bytes | Sequence[bytes] = b"",
    headers: dict[str, str] | None = None,
) -> Answer:
    """As ``asked``, outside an event loop."""
    answer = asyncio.run(asked(app, method, path, body, headers))
    assert answer is not None
    return answer


def tag(app: App, **request: Any) -> Answer:
    """A request to tag texts."""
    return ask(app, "POST", "/tag", json.dumps(request).encode(), JSON)


class One:
    """A tagger without a model: every text is a label's name."""

    def tag(self, texts: Sequence[str], top_k: int) -> list[list[Tag]]:
        return [[Tag(len(text), text, 0.5, 0.5)] for text in texts]


def serve_http() -> Any:
    """The module; skips where uvicorn is not installed."""
    return pytest.importorskip(
        "ray_xml.serve_http",
        exc_type=ImportError,
        reason="Ray Serve brings uvicorn: pip install 'ray-xml[serve]'",
    )


@contextmanager
def over_http(tagger: Any, folder: Path, about: str = "a model") -> Iterator[int]:
    """The port at which the application answers.

    Args:
        folder: an empty one, for its counters.
    """
    counts = Counts(folder)
    batcher = Batcher(tagger, counts)
    server = serve_http().http_server(App(batcher, counts, about))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
    batcher.close()
