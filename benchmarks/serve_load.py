"""How many requests a served model answers, and how fast, under load from another process.

    ray-xml export RUN MODEL
    python benchmarks/serve_load.py MODEL texts.txt --text text [-- --replicas 2]

starts ``ray-xml serve MODEL`` with what stands behind ``--``, and sends one text a request over
connections that stay open: from 1, then 8, then 32 clients, each of which waits for its answer
before it asks again. Among them one sends requests that must be refused. Memory is the
proportional set size of all processes of the server, Ray's among them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import IO

import numpy as np
from process_tree import ProcessTree, proportional_bytes

from ray_xml.predict_text import texts_of
from ray_xml.row_files import Columns

_START_SECONDS = 180.0
_HOSTILE_PAUSE = 0.02  # seconds between two requests that must be refused
_HEAD = "POST /tag HTTP/1.1\r\nHost: bench\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"


def request(body: bytes, kind: str = "application/json") -> bytes:
    return _HEAD.format(kind, len(body)).encode() + body


HOSTILE = {
    "no JSON": request(b"{"),
    "no UTF-8": request(b"\xff\xfe\x00"),
    "empty": request(b""),
    "nested": request(b"[" * 100_000),
    "wrong type": request(b'{"text": 1}'),
    "unknown key": request(b'{"text": "a", "x": 1}'),
    "surrogate": request(b'{"text": "\\ud800"}'),
    "too many": request(json.dumps({"texts": ["a"] * 1000}).encode()),
    "too long": request(json.dumps({"text": "a" * 1_000_000}).encode()),
    "too large": request(b" " * (5 << 20)),
    "wrong kind": request(b'{"text": "a"}', "text/plain"),
    "wrong method": b"GET /tag HTTP/1.1\r\nHost: bench\r\n\r\n",
    "wrong path": b"GET /nothing HTTP/1.1\r\nHost: bench\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x00\r\n\r\n",
}


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body)."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else await reader.read()
    return int(head.split(b" ", 2)[1]), body


class Load:
    """Requests to a port of this machine, and what came of them.

    Attributes:
        seconds: of each good request.
        failures: of good requests, by status or what went wrong.
        refused: of bad requests, (what, status) → count; status 0 is a closed connection.
    """

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._port, self._requests = port, requests
        self.seconds: list[float] = []
        self.failures: Counter[str] = Counter()
        self.refused: Counter[tuple[str, int]] = Counter()

    async def run(self, clients: int, seconds: float, *, hostile: bool) -> None:
        end = time.perf_counter() + seconds
        senders = [self._good(end, first * 997) for first in range(clients)]
        await asyncio.gather(*senders, *([self._bad(end)] if hostile else []))

    async def _good(self, end: float, first: int) -> None:
        requests = islice(cycle(self._requests), first % len(self._requests), None)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for sent in requests:
            began = time.perf_counter()
            if began > end:
                break
            try:
                writer.write(sent)
                status, body = await answer(reader)
            except (OSError, EOFError) as error:
                self.failures[type(error).__name__] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                continue
            if status != 200 or not body.startswith(b'{"documents"'):
                self.failures[str(status)] += 1
            self.seconds.append(time.perf_counter() - began)
        writer.close()

    async def _bad(self, end: float) -> None:
        for what in cycle(HOSTILE):
            if time.perf_counter() > end:
                return
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(HOSTILE[what])
            try:
                status, _ = await answer(reader)
            except (OSError, EOFError):
                status = 0
            self.refused[what, status] += 1
            writer.close()
            await asyncio.sleep(_HOSTILE_PAUSE)


def measured(
    port: int, requests: Sequence[bytes], clients: int, seconds: float, *, hostile: bool = True
) -> dict[str, object]:
    """One line of the table.

    Args:
        hostile: whether one more client sends what must be refused.
    """
    load = Load(port, requests)
    began = time.perf_counter()
    asyncio.run(load.run(clients, seconds, hostile=hostile))
    took = time.perf_counter() - began
    wrong = {
        f"{what}: {status}": count
        for (what, status), count in load.refused.items()
        if not 400 <= status < 500
    }
    return {
        "clients": clients,
        "requests a second": round(len(load.seconds) / took, 1),
        "p50 ms": round(1e3 * float(np.percentile(load.seconds, 50)), 2),
        "p99 ms": round(1e3 * float(np.percentile(load.seconds, 99)), 2),
        "failures": dict(load.failures),
        "refused": sum(load.refused.values()),
        "bad and not refused": wrong,
    }


@contextmanager
def served(model: str, options: Sequence[str], log: IO[str]) -> Iterator[tuple[int, int]]:
    """(port, pid) of a server that is up."""
    command = [sys.executable, "-m", "ray_xml.cli", "serve", model, "--port", "0", *options]
    began = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        said = server.stdout.readline()
        found = re.search(r"http://[^ ]*:(\d+)/", said)
        if not found:
            raise SystemExit(f"the server did not start: {said}{Path(log.name).read_text()}")
        print(f"up after {time.monotonic() - began:.1f} s", file=sys.stderr)
        yield int(found[1]), server.pid
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
        print(f"ended with status {status}", file=sys.stderr)


def memory(pid: int) -> dict[str, float]:
    """MiB of the server's processes, by what they are, and of all."""
    tree = ProcessTree(pid)
    tree.look()
    roles = {role: one.at_peak / 2**20 for role, one in tree.roles().items()}
    held = {
        role: round(size, 1)
        for role, size in roles.items()
        if role.startswith(("ray::ServeReplica", "ray::PredictShard", "root"))
    }
    pids = [one.pid for one in tree.members()]
    total = sum(proportional_bytes(one) or 0 for one in pids) / 2**20
    return {**held, "all": round(total, 1)}


def main() -> None:
    own, options = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, options = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("texts", help="a file of texts, as for ray-xml predict --text")
    parser.add_argument("--text", default="text", help="its column")
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each number of clients")
    parser.add_argument("--only-good", action="store_true", help="send nothing to be refused")
    parser.add_argument("--most", type=int, default=5000, help="texts to take")
    given = parser.parse_args(own)
    blocks = texts_of(given.texts, Columns(text=(given.text,)))
    read = (text for some, _ in blocks for text in some)
    texts = list(islice(read, given.most))
    requests = [request(json.dumps({"text": text}).encode()) for text in texts if text.strip()]
    with (
        tempfile.NamedTemporaryFile("w+", suffix=".log") as log,
        served(given.model, options, log) as (port, pid),
    ):
        measured(port, requests, 4, 2.0)  # warms up
        before = memory(pid)
        lines = [
            measured(port, requests, int(clients), given.seconds, hostile=not given.only_good)
            for clients in given.clients.split(",")
        ]
        told = {"memory before, MiB": before, "load": lines, "memory after, MiB": memory(pid)}
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
