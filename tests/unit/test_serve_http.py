"""The HTTP server's bounds on what is no request yet, over real connections."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from asgi import One, over_http, serve_http

http = serve_http()
BODY = json.dumps({"text": "a"}).encode()
HEAD = b"POST /tag HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with over_http(One(), tmp_path_factory.mktemp("counts")) as found:
        yield found


def answers(connection: socket.socket, seconds: float = 5.0) -> bytes:
    """What comes until the server hangs up, or for so long."""
    connection.settimeout(seconds)
    found = b""
    with suppress(TimeoutError, ConnectionResetError):
        while part := connection.recv(1 << 16):
            found += part
    return found


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5)


def test_requests_one_after_another_and_at_once(port: int) -> None:
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(GOOD)
            assert b"200 OK" in connection.recv(1 << 16)
        connection.sendall(GOOD * 3)
        assert answers(connection, 1.0).count(b"200 OK") == 3


def test_a_head_byte_by_byte(port: int) -> None:
    with connected(port) as connection:
        for at in range(len(GOOD)):
            connection.sendall(GOOD[at : at + 1])
        assert b"200 OK" in connection.recv(1 << 16)


@pytest.mark.parametrize("what", [b"X: y\r\n", b"x" * 100, b"X:" + b" " * 100])
def test_a_head_without_end_is_cut_off(port: int, what: bytes) -> None:
    with connected(port) as connection:
        sent = 0
        with suppress(ConnectionError):
            connection.sendall(HEAD)
            while sent < 64 << 20:
                connection.sendall(what * 100)
                sent += len(what) * 100
        assert sent < 16 << 20  # what lies in the sockets' buffers, too
        found = answers(connection)
        assert found == b"" or b"400 Bad Request" in found


def test_a_trailer_without_end_is_cut_off(port: int) -> None:
    with connected(port) as connection:
        sent = 0
        with suppress(ConnectionError):
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n")
            while sent < 256 << 20:
                connection.sendall(b"X: " + b"y" * (1 << 20) + b"\r\n")
                sent += 1 << 20
        assert sent < 100 << 20


def test_a_head_that_does_not_come(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.3)
    for sent in (b"", HEAD, GOOD + HEAD):
        with connected(port) as connection:
            connection.sendall(sent)
            began = time.monotonic()
            found = answers(connection, 10)
            assert time.monotonic() - began < 5
            assert found.count(b"200 OK") == (sent.startswith(GOOD))
    with connected(port) as connection:  # one between two requests may wait longer
        connection.sendall(GOOD)
        connection.recv(1 << 16)
        time.sleep(0.6)
        connection.sendall(GOOD)
        assert b"200 OK" in connection.recv(1 << 16)


def test_what_is_no_http_is_refused(port: int) -> None:
    sent = [b"\x16\x03\x01\x00\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"BREW / HTTP/1.1\r\n\r\n"]
    for one in sent:
        with connected(port) as connection:
            connection.sendall(one)
            assert answers(connection).startswith(b"HTTP/1.1 400 ")
