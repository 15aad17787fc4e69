"""A served model over HTTP, on a real Ray Serve: answers, refusals, and every way to end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from processes import Command, ray_xml, wait_for
from trained import trained_run
from worded import calibrated_run, texts

from ray_xml.cli import main
from ray_xml.cluster.serve import ONE_PROCESS, Server, serve, shards_for
from ray_xml.errors import ConfigError
from ray_xml.model_place import ModelPlace
from ray_xml.predictor import Predictor
from ray_xml.run_folder import RunFolder
from ray_xml.store import DataSet

pytest.importorskip("uvicorn", reason="Ray Serve is not installed: pip install 'ray-xml[serve]'")

ASKED = [text for text, _ in texts(1, 12)]
REPLICA, SHARD = "ray::ServeReplica", "ray::PredictShard"
JSON = {"Content-Type": "application/json"}


class Running:
    """``ray-xml serve`` that has said where it listens."""

    def __init__(self, model: Path, folder: Path, *options: object) -> None:
        self.command = Command("serve", model, "--port", 0, *options, folder=folder)
        self.found: re.Match[str] | None = None

        def ready() -> bool:
            said = self.command.said()
            self.found = re.search(r"^serving .* at http://127\.0\.0\.1:(\d+)/", said, re.M)
            return bool(self.found) or not self.command.running()

        wait_for(ready)
        assert self.found, self.command.end(0.1)
        self.port = int(self.found[1])

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Any = JSON
    ) -> tuple[int, bytes]:
        """(status, body), over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def tag(self, **request: Any) -> bytes:
        status, body = self.ask("POST", "/tag", json.dumps(request).encode())
        assert status == 200, body
        return body

    def raw(self, sent: bytes) -> bytes:
        """What comes back for bytes that may be no HTTP, before the server hangs up or for 3 s."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.port), 3) as connection:
            connection.sendall(sent)
            with suppress(TimeoutError):
                while part := connection.recv(1 << 16):
                    found += part
        return found

    def count(self, name: str) -> float:
        """A sample of /metrics."""
        for line in self.ask("GET", "/metrics")[1].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def healthy(self) -> bool:
        try:
            return self.ask("GET", "/healthz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def assert_ends(self) -> None:
        """Quietly, and with everything that it started."""
        status, out, err = self.command.end(60)
        assert (status, err) == (0, "stopped\n")
        assert "Traceback" not in out
        assert wait_for(lambda: not self.command.offspring(), 20), self.command.offspring()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return calibrated_run(tmp_path_factory.mktemp("worded"))


@pytest.fixture(scope="module")
def exported(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exports") / "model"
    assert main(["export", str(run.path), str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def served(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two replicas, each with all labels."""
    server = Running(exported, tmp_path_factory.mktemp("served"), "--replicas", 2)
    yield server
    server.command.clean_up()


def told(predictor: Predictor, request: dict[str, Any]) -> Any:
    """What the server is to answer."""
    asked = request["texts"] if "texts" in request else [request["text"]]
    documents = []
    for text, tags in zip(asked, predictor.tag(asked, request.get("top_k", 5)), strict=True):
        labels = [tag._asdict() for tag in tags]
        if request.get("explain"):
            reasons = predictor.reasons(text, [tag.label for tag in tags])
            for label, terms in zip(labels, reasons, strict=True):
                label["terms"] = [term._asdict() for term in terms]
        documents.append({"labels": labels})
    return {"documents": documents}


REQUESTS: list[dict[str, Any]] = [
    {"texts": ASKED, "top_k": 3},
    *({"text": text} for text in ASKED),
    {"texts": ASKED[:3], "explain": True},
    {"text": "unheard of", "explain": True},
    {"text": ASKED[0], "top_k": 40},
]


def test_the_predictors_answers(served: Running, exported: Path) -> None:
    predictor = Predictor.load(exported)
    for request in REQUESTS:
        assert json.loads(served.tag(**request)) == told(predictor, request)


def test_many_at_once_over_both_replicas(served: Running, exported: Path) -> None:
    predictor = Predictor.load(exported)
    before = served.count("ray_xml_serve_texts_total")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: served.tag(text=text), ASKED * 20))
    for text, body in zip(ASKED * 20, found, strict=True):
        (expected,) = told(predictor, {"text": text})["documents"]
        labels = json.loads(body)["documents"][0]["labels"]
        # Together with other texts, matrix products may round differently.
        for one, other in zip(labels, expected["labels"], strict=True):
            assert one["score"] == pytest.approx(other["score"], abs=2e-6)
    assert len(served.command.pids(REPLICA)) == 2
    # Whichever replica is asked, all are counted.
    assert {served.count("ray_xml_serve_texts_total") for _ in range(8)} == {before + 240}


def test_hostile_requests_are_refused_and_the_good_ones_answered(served: Running) -> None:
    good = json.dumps({"text": ASKED[0]}).encode()
    bad = [
        ("POST", "/tag", b"{", JSON, 400),
        ("POST", "/tag", b"", JSON, 400),
        ("POST", "/tag", b"\xff\xfe", JSON, 400),
        ("POST", "/tag", b'{"text": 1}', JSON, 400),
        ("POST", "/tag", good, {}, 415),
        ("POST", "/tag", b" " * (5 << 20), JSON, 413),
        ("GET", "/tag", None, {}, 405),
        ("GET", "/nothing", None, {}, 404),
        ("PATCH", "/", None, {}, 405),
    ]
    for method, path, body, headers, status in bad:
        found, answer = served.ask(method, path, body, headers)
        assert (found, set(json.loads(answer))) == (status, {"error"}), answer
        assert served.ask("POST", "/tag", good)[0] == 200
    # Bodies of a length that nobody told.
    assert served.ask("POST", "/tag", iter([b"{", b"}"]), JSON)[0] == 400  # type: ignore[arg-type]
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    start = b"POST /tag HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    large = start + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 80 + b"0\r\n\r\n"
    assert served.raw(large).startswith(b"HTTP/1.1 413 ")
    for sent in (
        b"\x00\x01\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ):
        assert served.raw(sent).startswith(b"HTTP/1.1 400 "), sent
    assert served.raw(start + b"Content-Length: -5\r\n\r\n{}").startswith(b"HTTP/1.1 400 ")
    assert served.ask("POST", "/tag", good)[0] == 200
    assert served.count('ray_xml_serve_requests_total{path="/tag",status="500"}') == 0


def test_it_listens_at_loopback_alone(served: Running) -> None:
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f":{served.port:04X}"
    own = [line.split()[1] for line in listening if f"{port} 00000000:0000 0A" in line]
    assert own == [f"0100007F{port}"] * 2
    six = Path("/proc/net/tcp6")
    assert not six.exists() or f"{port} 0000" not in six.read_text()


def test_a_killed_replica_is_replaced(served: Running) -> None:
    before = served.count("ray_xml_serve_texts_total")
    first, second = served.command.pids(REPLICA)
    os.kill(first, signal.SIGKILL)

    def replaced() -> bool:
        now = served.command.pids(REPLICA)
        return len(now) == 2 and first not in now and served.healthy()

    assert wait_for(replaced)
    assert second in served.command.pids(REPLICA)
    assert served.count("ray_xml_serve_texts_total") >= before > 0
    for _ in range(8):
        served.tag(text=ASKED[0])


def test_a_second_server_needs_another_port(
    served: Running, exported: Path, tmp_path: Path
) -> None:
    status, out, err = ray_xml("serve", exported, "--port", served.port, folder=tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: 127.0.0.1:{served.port} cannot be listened at (Address already")
    assert err.count("\n") == 1


def test_a_terminated_server_answers_what_is_under_way(served: Running) -> None:
    """The last test of this server."""
    body = json.dumps({"texts": ASKED * 20}).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as connection:
        connection.request("POST", "/tag", body, JSON)
        served.command.terminate()
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(json.loads(answer.read())["documents"]) == 240
    served.assert_ends()
    with pytest.raises(ConnectionRefusedError):
        served.ask("GET", "/healthz")


def test_sharded_labels(run: RunFolder, tmp_path: Path) -> None:
    """The answers are the same, to the last bit, of a run folder with probabilities; a shard that
    is killed comes back; an interrupt ends all."""
    predictor = Predictor.load(run.path)
    server = Running(run.path, tmp_path, "--label-shards", 3)
    try:
        for request in REQUESTS:
            assert json.loads(server.tag(**request)) == told(predictor, request)
        shards = server.command.pids(SHARD)
        assert len(shards) == 3
        os.kill(shards[0], signal.SIGKILL)
        found = json.loads(server.tag(text=ASKED[0]))  # waits for the new one
        assert found == told(predictor, {"text": ASKED[0]})
        assert wait_for(server.healthy, 30)
        assert shards[0] not in server.command.pids(SHARD)
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    server.ask("POST", "/tag", json.dumps({"texts": ASKED}).encode())
                except (OSError, http.client.HTTPException):
                    return

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        server.command.interrupt()  # the whole group, as Ctrl-C does
        server.assert_ends()
        stop.set()
        for thread in threads:
            thread.join()
    finally:
        server.command.clean_up()


def test_a_signal_while_it_starts(exported: Path, tmp_path: Path) -> None:
    command = Command("serve", exported, "--port", 0, folder=tmp_path)
    try:
        assert wait_for(lambda: len(command.offspring()) > 3)  # Ray is starting
        command.terminate()
        status, out, err = command.end(60)
        assert (status, out, err) == (0, "", "stopped\n")
        assert wait_for(lambda: not command.offspring(), 20), command.offspring()
    finally:
        command.clean_up()


def test_nothing_serves_after_a_kill(exported: Path, tmp_path: Path) -> None:
    server = Running(exported, tmp_path, "--label-shards", 2)
    try:
        server.tag(text=ASKED[0])
        server.command.kill()
        # These two of Ray's take minutes to see that they are alone.
        agents = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
        assert wait_for(lambda: set(server.command.offspring()) <= agents, 60)
    finally:
        server.command.clean_up()


def test_refusals(data: DataSet, exported: Path, tmp_path: Path) -> None:
    wordless = trained_run(data, tmp_path / "runs").path
    # Its last two features as dense columns.
    with_vectors = Path(shutil.copytree(exported, tmp_path / "with_vectors"))
    tree = json.loads((with_vectors / "vectorizer.json").read_text())
    tree |= {"format_version": 3, "embedding": {"columns": 2, "weight": 1.0}}
    tree["document_counts"] = tree["document_counts"][:-2]
    (with_vectors / "vectorizer.json").write_text(json.dumps(tree))
    for arguments, says in (
        ((wordless,), "has no vectorizer.json, so it does not say how texts become features"),
        ((with_vectors,), "trained with embeddings, which requests cannot bring"),
        ((tmp_path / "nothing",), "nothing"),
        ((exported, "--host", "no-such-host.invalid"), "--host no-such-host.invalid: no such"),
        ((exported, "--replicas", 1000), "--replicas 1000 need a CPU each, and this machine"),
    ):
        status, out, err = ray_xml("serve", *arguments, "--port", 0, folder=tmp_path)
        assert (status, out) == (1, ""), err
        assert err.startswith("error: ")
        assert says in err
        assert err.count("\n") == 1, err


def test_a_large_models_labels_are_cut_by_themselves(run: RunFolder, exported: Path) -> None:
    for model in (run.path, exported):
        assert 10_000 < ModelPlace.find(str(model)).size() < 10_000_000
    sizes = (0, 1, ONE_PROCESS, ONE_PROCESS + 1, 5 * ONE_PROCESS)
    assert [shards_for(size) for size in sizes] == [1, 1, 1, 2, 5]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"pip install 'ray-xml\[serve\]'"):
        serve(str(exported), Server())
