"""A server's port: reserved once, listened at by several."""

from __future__ import annotations

import socket

import pytest

from ray_xml.errors import ConfigError, ResourceError
from ray_xml.serve_socket import listen, reserve


def test_a_reserved_port_gets_no_connection_until_somebody_listens() -> None:
    with reserve("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 2)
        with listen("127.0.0.1", port) as one, listen("127.0.0.1", port) as two:
            for made in (one, two):
                made.settimeout(0.2)
            clients = [socket.create_connection(("127.0.0.1", port), 2) for _ in range(40)]
            counts = [_accepted(one), _accepted(two)]
            assert sum(counts) == 40
            assert min(counts) > 0
            for client in clients:
                client.close()


def _accepted(listening: socket.socket) -> int:
    count = 0
    while True:
        try:
            listening.accept()[0].close()
        except TimeoutError:
            return count
        count += 1


def test_a_port_is_reserved_once() -> None:
    with reserve("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with pytest.raises(ResourceError, match=f"127.0.0.1:{port} cannot be listened at .*in use"):
            reserve("127.0.0.1", port)
        with listen("127.0.0.1", port), pytest.raises(ResourceError, match="give another --port"):
            reserve("127.0.0.1", port)
    reserve("127.0.0.1", port).close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "300.1.1.1"])
def test_no_such_host(host: str) -> None:
    with pytest.raises(ConfigError, match="no such address"):
        reserve(host, 0)


def test_another_machines_address() -> None:
    with pytest.raises(ResourceError, match="cannot be listened at"):
        reserve("203.0.113.7", 0)
