"""``ray-xml serve`` on a cluster that is there already: it takes its part and gives it back."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from job_cluster import JobCluster
from processes import Command, wait_for
from worded import texts, worded_run

from ray_xml.cli import main
from ray_xml.predictor import Predictor

pytest.importorskip("uvicorn", reason="Ray Serve is not installed: pip install 'ray-xml[serve]'")

ASKED = [text for text, _ in texts(1, 6)]


def test_two_servers_on_one_cluster(tmp_path: Path) -> None:
    made, exported = worded_run(tmp_path), tmp_path / "model"
    assert main(["export", str(made.path), str(exported)]) == 0
    expected = [[tag._asdict() for tag in tags] for tags in Predictor.load(exported).tag(ASKED)]
    with JobCluster(tmp_path, 2) as cluster:
        address = f"127.0.0.1:{cluster.gcs}"
        commands = [
            Command(
                "serve", exported, "--port", 0, "--address", address, "--label-shards", shards,
                folder=tmp_path, environment=cluster.environment,
            )
            for shards in (1, 2)
        ]  # fmt: skip
        first, second = commands
        try:
            ports = [listening(command) for command in commands]
            for port in ports:
                assert asked(port) == expected
            first.terminate()
            assert first.end(60)[::2] == (0, "stopped\n")
            assert asked(ports[1]) == expected  # the other is not touched
            second.terminate()
            assert second.end(60)[::2] == (0, "stopped\n")
            # Ray Serve's controller stays, as it may be others' too.
            assert wait_for(lambda: "PredictShard" not in cluster.listed("actors"), 30)
            assert "ServeReplica" not in cluster.listed("actors")
        finally:
            for command in commands:
                command.clean_up()


def listening(command: Command) -> int:
    """The port, once it serves."""
    wait_for(lambda: "serving" in command.said() or not command.running())
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", command.said())
    assert found, command.end(1)
    return int(found[1])


def asked(port: int) -> list[object]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        body = json.dumps({"texts": ASKED})
        connection.request("POST", "/tag", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200
        return [one["labels"] for one in json.loads(answer.read())["documents"]]
