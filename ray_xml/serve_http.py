"""The HTTP server of a replica: uvicorn, with bounds on what it takes before a request is one.

uvicorn alone waits for a request's head for ever, and holds one of any length.
"""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ray_xml.serve_app import PASSED_OVER, App

HEAD_SECONDS, HEAD_BYTES = 30.0, 64 << 10  # for the head of a request to come, and its size
_IDLE_SECONDS = 75  # that a connection stays open between requests
LAST_SECONDS = 10.0  # for requests under way to end, once the server is to


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    _whole = False  # whether the head of the request that comes is there
    _came = 0  # bytes of the request so far
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        self._came += len(data)
        super().data_received(data)
        most = HEAD_BYTES + PASSED_OVER if self._whole else HEAD_BYTES
        if self._came > most and not self.transport.is_closing():
            self.send_400_response("The request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        self._whole = True
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._whole, self._came = False, 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def http_server(app: App) -> uvicorn.Server:
    """A server to run in a thread, which ``should_exit`` ends."""
    options: dict[str, Any] = {
        "http": BoundedHttp,
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _IDLE_SECONDS,
        "timeout_graceful_shutdown": int(LAST_SECONDS),
    }
    return uvicorn.Server(uvicorn.Config(app, **options))
