"""A trained model behind HTTP on Ray Serve, from the start to a clean end.

    this process  reserves the port, starts label shards and replicas, waits for a signal
    replicas      listen at the port and answer (serve_replica), on this machine
    label shards  hold the labels, where one process should not; on all machines

Replicas are Ray Serve's to watch over and replace, label shards Ray's. Both end with this command.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import ray

from ray_xml.cluster.placement import cluster_nodes
from ray_xml.cluster.predict_shards import start_shards, wait_ready
from ray_xml.cluster.session import session
from ray_xml.errors import ConfigError, LostError, ResourceError
from ray_xml.model_place import ModelPlace
from ray_xml.run_sections import ResourcesConfig
from ray_xml.serve_socket import reserve
from ray_xml.storage import is_url

ONE_PROCESS = 2 << 30  # bytes of a model's files: of more, one process should not hold all labels
_TELL_AFTER = 60.0  # seconds of waiting for replicas
_LOOK_SECONDS = 5.0  # between looks at whether Ray is still there
_LOGGER = "ray.serve"


@dataclass(frozen=True)
class Server:
    """What is asked for.

    Attributes:
        host, port: where to listen; port 0 is any free one.
        replicas: processes that answer.
        label_shards: processes that hold the labels; 1 is every replica by itself, None as many as
            the model's size asks for.
        address: as ``resources.address``.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    label_shards: int | None = None
    address: str | None = None

    def resources(self, shards: int) -> ResourcesConfig:
        """As other commands name them."""
        return ResourcesConfig(workers=1, label_shards=shards, address=self.address)


def serve(model: str, server: Server) -> None:
    """Serves until SIGINT or SIGTERM, also while it starts; returns when all has ended.

    Args:
        model: run folder or exported model, or the URL of one.

    Raises:
        ConfigError: Ray Serve is not installed, or there is no such host.
        ResourceError: the port is taken, or the machine does not hold it.
        CheckpointError, DataSetError, StorageError: the model cannot be read, or takes no texts.
        LostError: Ray has gone.
    """
    _check_installed()
    place = ModelPlace.find(model if is_url(model) else str(Path(model).resolve()))
    shards = server.label_shards or -(-place.size() // ONE_PROCESS)
    with _until_signalled(), ExitStack() as held:
        reserved = held.enter_context(reserve(server.host, server.port))
        port = reserved.getsockname()[1]
        counts = held.enter_context(tempfile.TemporaryDirectory(prefix="ray-xml-serve-"))
        where = held.enter_context(session(server.resources(shards)))
        _set_handlers()  # Ray sets its own
        names = held.enter_context(_label_shards(place, server, shards))
        held.enter_context(_replicas(place, server, names, port, counts, where))
        host = f"[{server.host}]" if ":" in server.host else server.host
        print(f"serving {model} at http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
        _watch()


def _check_installed() -> None:
    missing = [
        name for name in ("fastapi", "uvicorn", "httptools", "uvloop") if not find_spec(name)
    ]
    if missing:
        raise ConfigError(
            f"Ray Serve is not installed ({', '.join(missing)} missing); pip install "
            "'ray-xml[serve]', with the extra cpu or gpu"
        )


@contextmanager
def _until_signalled() -> Iterator[None]:
    """Ends quietly at SIGINT or SIGTERM, and takes no more of them while it cleans up."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _set_handlers()
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except SystemExit as error:
        if error.code != signal.SIGTERM:  # Ray's own handler, while Ray starts
            raise
        print("stopped", file=sys.stderr)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _set_handlers() -> None:
    def end(number: int, frame: FrameType | None) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


@contextmanager
def _label_shards(place: ModelPlace, server: Server, shards: int) -> Iterator[tuple[str, ...]]:
    """Their names; none for one process a replica."""
    if shards == 1:
        yield ()
        return
    nodes = cluster_nodes()
    cpus = sum(node.cpus for node in nodes)
    threads = max(1, int(cpus / (server.replicas + shards)))
    started = start_shards(place, nodes, server.resources(shards), threads)
    try:
        wait_ready(list(started.values()))
        yield tuple(started)
    finally:
        for actor in started.values():
            ray.kill(actor)


@contextmanager
def _replicas(
    place: ModelPlace, server: Server, shards: tuple[str, ...], port: int, counts: str, where: str
) -> Iterator[None]:
    from ray import serve as ray_serve
    from ray.serve.config import ProxyLocation
    from ray.serve.schema import LoggingConfig

    from ray_xml.cluster.serve_replica import Part, Replica

    address = ray.util.get_node_ip_address()
    cpus = _cpus_at(address, where)
    if server.replicas > cpus:
        raise ResourceError(
            f"--replicas {server.replicas} need a CPU each, and this machine gives Ray {cpus:g}; "
            "give fewer"
        )
    part = Part(place, shards, server.host, port, counts)
    logging.getLogger(_LOGGER).setLevel(logging.ERROR)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    ray_serve.start(proxy_location=ProxyLocation.Disabled, logging_config=quiet)
    deployment: Any = ray_serve.deployment(
        Replica,
        name="replica",
        num_replicas=server.replicas,
        ray_actor_options={
            "num_cpus": 1,
            # Where the port is reserved.
            "resources": {f"node:{address}": 0.001},
        },
        graceful_shutdown_wait_loop_s=0.1,
        graceful_shutdown_timeout_s=30,
        logging_config=quiet,
    )
    name = f"ray-xml-{port}-{uuid.uuid4().hex[:6]}"
    try:
        try:
            with _told_after(_TELL_AFTER, "waiting for replicas: the machine's CPUs may be taken"):
                handle = ray_serve.run(deployment.bind(part), name=name, route_prefix=None)
            wrong = handle.wrong.remote().result()
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise ResourceError(f"the server does not start: {error}") from error
        if wrong is not None:
            raise wrong
        yield
    finally:
        _end(name)


@contextmanager
def _told_after(seconds: float, what: str) -> Iterator[None]:
    """Says ``what`` if the context takes longer."""
    timer = threading.Timer(seconds, lambda: print(what, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cpus_at(address: str, where: str) -> float:
    """CPUs of the nodes on this machine, of which there may be several."""
    here = [one for one in ray.nodes() if one["Alive"] and one["NodeManagerAddress"] == address]
    cpus = sum(float(one["Resources"].get("CPU", 0)) for one in here)
    if not cpus:
        raise ResourceError(f"{where} has no CPUs on this machine; serve from a node that has some")
    return cpus


def _end(name: str) -> None:
    """Ends the application; Ray Serve itself ends with its cluster, or stays there for others."""
    from ray import serve as ray_serve

    try:
        ray_serve.delete(name)
    except (RuntimeError, ray.exceptions.RayError) as error:  # Ray has gone, and all with it
        print(f"not ended in order: {str(error).splitlines()[0]}", file=sys.stderr)


def _watch() -> None:
    """Waits for a signal; LostError where Ray ends before."""
    while True:
        time.sleep(_LOOK_SECONDS)
        try:
            ray.nodes()
        except (RuntimeError, ray.exceptions.RayError) as error:
            raise LostError(f"Ray has ended: {error}; start the server again") from error
