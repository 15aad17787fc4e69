"""An ASGI application asked without a server, request by request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray_xml.serve_app import App

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
