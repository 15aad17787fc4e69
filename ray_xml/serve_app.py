"""The server's paths, as an ASGI application without a framework.

    POST /tag           labels for texts (serve_request)
    GET  /              a page to try it          GET /docs, /openapi.json   how to ask
    GET  /healthz       whether it answers        GET /metrics               what it counted

Every error is JSON: {"error": "…"}.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, NamedTuple

from ray_xml.serve_batch import LOG, Batcher
from ray_xml.serve_counts import Counts
from ray_xml.serve_openapi import openapi
from ray_xml.serve_page import DOCS_POLICY, POLICY, docs_page, try_page
from ray_xml.serve_request import LIMITS, Limits, RefusedError, parse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_SECONDS = 30.0  # for a body to come
PASSED_OVER = 64 << 20  # bytes of a body that is too large, before the connection is closed
_JSON, _HTML = "application/json", "text/html; charset=utf-8"
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class _Page(NamedTuple):
    kind: str
    body: Callable[[], str]
    policy: str | None = None


class _GoneError(Exception):
    """The client has hung up."""


class App:
    """The application."""

    def __init__(
        self,
        batcher: Batcher,
        counts: Counts,
        about: str,
        *,
        limits: Limits = LIMITS,
        healthy: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        """
        Args:
            batcher: answers requests to tag texts.
            about: what the page tells of the model.
            healthy: tells what is wrong, or None.
        """
        self._batcher, self._counts, self._limits = batcher, counts, limits
        self._healthy = healthy
        page, spec = try_page(about, limits), openapi(limits)
        docs, told = docs_page(spec), json.dumps(spec, indent=1)
        self._pages = {
            "/": _Page(_HTML, lambda: page, POLICY),
            "/docs": _Page(_HTML, lambda: docs, DOCS_POLICY),
            "/openapi.json": _Page(_JSON, lambda: told),
            "/metrics": _Page("text/plain; version=0.0.4; charset=utf-8", counts.text),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"{scope['type']} is not served")
        path: str = scope["path"]
        headers: Iterable[tuple[bytes, bytes]] = ()
        try:
            kind, body, headers = await self._answer(path, scope, receive)
            status = HTTPStatus.OK
        except _GoneError:
            return
        except RefusedError as error:
            kind, body, status = _JSON, _error(str(error)), error.status
            headers = [(k.lower().encode(), v.encode()) for k, v in error.headers.items()]
        except Exception:
            LOG.exception("%s %s", scope["method"], path)
            kind, body = _JSON, _error("something is wrong with the server; its log says what")
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        # Before it is sent: whoever has the answer finds it counted.
        self._counts.request(path, status)
        start = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(body)),
            *_ALWAYS,
            *headers,
        ]
        await send({"type": "http.response.start", "status": int(status), "headers": start})
        # What is sent of it for HEAD is the server's to cut off.
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, path: str, scope: Scope, receive: Receive
    ) -> tuple[str, bytes, Iterable[tuple[bytes, bytes]]]:
        if path == "/tag":
            _check_method(scope, "POST")
            return _JSON, await self._tag(scope, receive), ()
        if path == "/healthz":
            _check_method(scope, "GET", "HEAD")
            return _JSON, await self._health(), ()
        page = self._pages.get(path)
        if page is None:
            there = ", ".join(("/tag", "/healthz", *self._pages))
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no such path; there are {there}")
        _check_method(scope, "GET", "HEAD")
        policy = [] if page.policy is None else [(b"content-security-policy", page.policy.encode())]
        return page.kind, page.body().encode(), policy

    async def _tag(self, scope: Scope, receive: Receive) -> bytes:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != _JSON.encode():
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the header Content-Type: {_JSON}"
            )
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding"
            )
        request = parse(await self._body(headers, receive), self._limits)
        answer, labels = await self._batcher.answer(request)
        self._counts.tagged(len(request.texts), labels, time.perf_counter() - began)
        return answer

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        told, most = headers.get(b"content-length", b"0"), self._limits.body
        large = told.isdigit() and int(told[:20]) > most
        message = await _before_long(receive)
        body, came = message.get("body", b""), 0
        if not message.get("more_body") and not large and len(body) <= most:
            return bytes(body)
        held, end = bytearray(), time.monotonic() + BODY_SECONDS
        while True:
            came += len(body)
            large = large or came > most
            if not large:
                held += body
            if not message.get("more_body") or came > PASSED_OVER:
                break
            message = await _before_long(receive, end - time.monotonic())
            body = message.get("body", b"")
        if large:
            # Said once the body is over, or is far too long: a client that still sends would find
            # its connection broken rather than this.
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {most:,} bytes",
                {"Connection": "close"},
            )
        return bytes(held)

    async def _health(self) -> bytes:
        wrong = None if self._healthy is None else await self._healthy()
        if wrong is not None:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, wrong)
        return b'{"status": "ok"}'


async def _before_long(receive: Receive, seconds: float = BODY_SECONDS) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            message = await receive()
    except TimeoutError:
        raise RefusedError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the body did not come within {BODY_SECONDS:g} seconds",
            {"Connection": "close"},
        ) from None
    if message["type"] == "http.disconnect":
        raise _GoneError
    return message


def _check_method(scope: Scope, *allowed: str) -> None:
    if scope["method"] not in allowed:
        told = " or ".join(allowed)
        raise RefusedError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"{scope['path']} takes {told} alone",
            {"Allow": ", ".join(allowed)},
        )


def _error(why: str) -> bytes:
    # A message may quote what a request says: ASCII, so that half a surrogate pair can be told.
    return json.dumps({"error": why}).encode()
