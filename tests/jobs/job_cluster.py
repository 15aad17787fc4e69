"""A Ray cluster as its users have it, on this machine: a head that only hands out work, nodes, a
token that all must show, and a package that comes with each job.

Every process of it carries a mark, so that its end can be seen and made sure of; nothing else on
the machine is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
from processes import carrying, wait_for

ROOT = Path(__file__).parents[2]
_MARK = "RAY_XML_TEST_CLUSTER"
_START = 180.0  # seconds


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@dataclass(frozen=True)
class Job:
    """What came of a submitted job."""

    id: str
    status: int
    output: str


class JobCluster:
    """Started on entering, ended on leaving."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self._nodes = folder, nodes
        self._mark = uuid.uuid4().hex
        self._scratch = Path(tempfile.mkdtemp(prefix="rxj", dir="/tmp"))  # paths of sockets: short
        self._started: list[subprocess.Popen[bytes]] = []
        self.gcs, self.dashboard = free_ports(2)
        token = self._scratch / "token"
        token.write_text(uuid.uuid4().hex + uuid.uuid4().hex)
        token.chmod(0o600)
        bin_folder = str(Path(sys.executable).parent)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))}
        self.environment = {
            **kept,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_XML_CACHE": str(folder / "cache"),
            _MARK: self._mark,
        }
        # What is submitted: the package and the jobs, as they would lie in a user's folder.
        self.package = folder / "package"
        for name in ("ray_xml", "jobs"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, self.package / name, ignore=ignored)

    def __enter__(self) -> JobCluster:
        try:
            self._start(
                "--head", f"--port={self.gcs}", f"--dashboard-port={self.dashboard}",
                "--dashboard-host=127.0.0.1", "--num-cpus=0",
                f"--temp-dir={self._scratch / 'ray'}",
                f"--ray-client-server-port={free_ports(1)[0]}",
            )  # fmt: skip
            assert wait_for(self._up, _START), self._logs()
            for nodes in range(2, self._nodes + 2):
                # One after the other: at once they would choose the same names for their sockets.
                self._start(f"--address=127.0.0.1:{self.gcs}", "--num-cpus=1")
                assert wait_for(lambda nodes=nodes: self._alive_nodes() == nodes, _START), (
                    self._logs()
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in reversed(self._started):
            one.send_signal(signal.SIGTERM)
        wait_for(lambda: not self.processes(), 30)
        for process, _title in carrying(_MARK, self._mark):
            try:
                process.kill()
            except psutil.Error:
                continue
        for one in self._started:
            one.wait(30)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def ray(self, *arguments: object, seconds: float = 600.0) -> tuple[int, str]:
        """(exit status, output) of the ``ray`` command."""
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", *map(str, arguments)],
            cwd=self.package,
            env={**self.environment, "RAY_API_SERVER_ADDRESS": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        return done.returncode, done.stdout

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard}"

    def submit(self, *entrypoint: object, wait: bool = True) -> Job:
        """``ray job submit --working-dir . -- python …``."""
        name = f"job-{uuid.uuid4().hex[:8]}"
        options = [] if wait else ["--no-wait"]
        status, output = self.ray(
            "job", "submit", "--submission-id", name, *options, "--working-dir", ".", "--",
            "python", *entrypoint,
        )  # fmt: skip
        return Job(name, status, output)

    def status(self, job: str) -> str:
        """Ray's word for the state of a job."""
        _, output = self.ray("job", "status", job)
        # Nothing but its first words: behind them come the job's own last ones.
        found = re.search(rf"Job '{job}' (?:was )?(\w+)|Status for job '{job}': (\w+)", output)
        return (found[1] or found[2]).upper() if found else output

    def processes(self, *wanted: str) -> list[str]:
        """Titles of the cluster's living processes, those that hold one of the words."""
        titles = [title for _, title in carrying(_MARK, self._mark)]
        return [one for one in titles if not wanted or any(word in one for word in wanted)]

    def listed(self, what: str) -> str:
        """What ``ray list actors`` or ``placement-groups`` says of those that are not gone."""
        filters = {
            # Ray Train's one for the cluster's whole life is nobody's.
            "actors": ["state!=DEAD", "class_name!=_AutoscalingCoordinatorActor"],
            "placement-groups": ["state!=REMOVED"],
        }[what]
        options = [text for one in filters for text in ("--filter", one)]
        status, output = self.ray("list", what, *options, "--address", self.url)
        assert status == 0, output
        return output

    def _start(self, *arguments: str) -> None:
        agent, agent_grpc, metrics, runtime = free_ports(4)
        with open(self._folder / f"node-{len(self._started)}.log", "wb") as log:
            self._started.append(
                subprocess.Popen(
                    [
                        sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                        f"--dashboard-agent-listen-port={agent}",
                        f"--dashboard-agent-grpc-port={agent_grpc}",
                        f"--metrics-export-port={metrics}",
                        f"--runtime-env-agent-port={runtime}",
                        "--object-store-memory=200000000", "--node-ip-address=127.0.0.1",
                        *arguments,
                    ],
                    cwd=self._folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )  # fmt: skip

    def _up(self) -> bool:
        assert self._started[0].poll() is None, self._logs()
        time.sleep(1)
        status, _ = self.ray("job", "list")
        return status == 0

    def _alive_nodes(self) -> int:
        time.sleep(1)
        status, output = self.ray("list", "nodes", "--address", self.url)
        return output.count("ALIVE") if status == 0 else 0

    def _logs(self) -> str:
        return "\n".join(one.read_text() for one in sorted(self._folder.glob("node-*.log")))
