"""The address that a server listens at: taken once, listened at by several processes.

A socket that is bound and does not listen keeps the port for its owner while processes come and go,
and gets no connection itself; those that listen with ``SO_REUSEPORT`` get them in turn.
"""

from __future__ import annotations

import socket

from ray_xml.errors import ConfigError, ResourceError

_BACKLOG = 1024  # connections that may wait to be accepted


def reserve(host: str, port: int) -> socket.socket:
    """Takes the port, any free one if it is 0, until the socket is closed.

    Raises:
        ResourceError: another process has it, or this user may not.
        ConfigError: the host is none of this machine.
    """
    # The first sees whether anybody is there, sharing or not; connections that ended a moment ago
    # are nobody. The one that holds the port must not have that option: two that do not listen
    # would both get it.
    with _bind(host, port, socket.SO_REUSEADDR) as alone:
        port = alone.getsockname()[1]
    return _bind(host, port, socket.SO_REUSEPORT)


def listen(host: str, port: int) -> socket.socket:
    """Listens at a port that was reserved; errors are those of ``reserve``."""
    made = _bind(host, port, socket.SO_REUSEADDR, socket.SO_REUSEPORT)
    made.listen(_BACKLOG)
    return made


def _bind(host: str, port: int, *options: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: no such address ({error})") from error
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise ResourceError(
            f"{host}:{port} cannot be listened at ({error.strerror}); give another --port or "
            "--host, or end the process that has it"
        ) from error
    return made
