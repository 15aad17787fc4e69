"""A cluster with token authentication: who has the token trains by `ray job submit`, others do not
get in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from job_cluster import free_ports
from ray.exceptions import AuthenticationError

from ray_xml.cluster.session import session
from ray_xml.errors import ResourceError
from ray_xml.run_sections import ResourcesConfig
from ray_xml.store import DataSet

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Head:
    """A head of two CPUs, started as cluster.yaml starts it."""

    environment: dict[str, str]  # a client's, with the token
    address: str

    def ray(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ray", *arguments],
            cwd=ROOT,
            env={**self.environment, **changed},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # pytest's are too long for Ray's sockets
    # All of them: another Ray on the machine may have those that Ray takes by itself.
    port, dashboard, client, agent, agent_grpc, metrics, runtime = free_ports(7)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),  # where Ray looks for the token
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    made = Head(environment, f"127.0.0.1:{port}")
    assert made.ray("get-auth-token", "--generate").returncode == 0
    log = folder / "head.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            [
                *("ray", "start", "--head", "--block", "--num-cpus=2", f"--port={port}"),
                *(f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"),
                *(f"--ray-client-server-port={client}", f"--temp-dir={folder}"),
                *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
                *(
                    f"--dashboard-agent-grpc-port={agent_grpc}",
                    f"--runtime-env-agent-port={runtime}",
                ),
                *("--node-ip-address=127.0.0.1", "--object-store-memory=100000000"),
            ],
            env=environment,
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    try:
        for _ in range(120):
            if "Ray runtime started" in log.read_text() or process.poll() is not None:
                break
            time.sleep(1)
        assert "Ray runtime started" in log.read_text(), log.read_text()
        yield made
    finally:
        process.terminate()  # and with it all that it started
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "changed",
    [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}],
    ids=["no token", "another token"],
)
def test_without_its_token_nobody_gets_in(head: Head, changed: dict[str, str]) -> None:
    asked = head.ray("job", "list", **changed)
    assert asked.returncode != 0
    assert "authentication token" in asked.stdout
    assert head.ray("job", "list").returncode == 0


def test_a_job_trains_and_another_measures(head: Head, data: DataSet, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submit = ["job", "submit", "--working-dir", ".", "--", "python"]
    small = ["training.epochs=1", "resources.workers=1", "resources.label_shards=2"]
    trained = head.ray(
        *submit, "jobs/train.py", "configs/default.yaml", f"data={data.path}", f"run={run}", *small
    )
    assert trained.returncode == 0, trained.stdout
    assert f"next: ray-xml evaluate {run}" in trained.stdout
    assert (run / "metrics.jsonl").read_text().count("\n") == 1
    measured = head.ray(*submit, "jobs/evaluate.py", str(run), "--json")
    assert measured.returncode == 0, measured.stdout
    assert '"P@1"' in measured.stdout


@pytest.mark.parametrize(
    ("error", "address", "hinted"),
    [
        (ConnectionError("no answer"), "head:6379", True),
        (ConnectionError("no answer"), "local", False),
        (AuthenticationError("no token was found"), "head:6379", False),  # its own text says it
    ],
)
def test_who_cannot_join_is_told_about_tokens(
    monkeypatch: pytest.MonkeyPatch, error: Exception, address: str, hinted: bool
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(ResourceError, match=f"'{address}' cannot be joined: no ") as caught,
        session(ResourcesConfig(address=address, workers=1)),
    ):
        raise AssertionError("it was joined")
    assert ("Where it has token authentication" in str(caught.value)) is hinted
