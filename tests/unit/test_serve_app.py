"""The server's application without a server: every path, every refusal, batches, failures."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from asgi import JSON, Answer, ask, asked, tag
from worded import texts, worded_run

from ray_xml import serve_app, serve_batch
from ray_xml.errors import LostError
from ray_xml.predictor import Predictor
from ray_xml.serve_app import App
from ray_xml.serve_batch import Batcher
from ray_xml.serve_counts import Counts
from ray_xml.serve_openapi import openapi
from ray_xml.serve_request import LIMITS, Limits
from ray_xml.tagger import Tag

ASKED = [text for text, _ in texts(1, 12)]
GOOD = json.dumps({"text": ASKED[0]}).encode()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(worded_run(tmp_path_factory.mktemp("worded")).path)


@pytest.fixture
def app(predictor: Predictor, tmp_path: Path) -> Iterator[App]:
    yield from _served(predictor, tmp_path)


def _served(tagger: Any, folder: Path, **options: Any) -> Iterator[App]:
    counts = Counts(folder)
    batcher = Batcher(tagger, counts)
    yield App(batcher, counts, "a model <of> tests", **options)
    batcher.close()


def counted(app: App, path: str, status: int) -> float:
    """How many such answers the application says it has given."""
    line = f'ray_xml_serve_requests_total{{path="{path}",status="{status}"}} '
    for one in ask(app, "GET", "/metrics").body.decode().splitlines():
        if one.startswith(line):
            return float(one.removeprefix(line))
    return 0


def as_told(tags: list[Tag], least: float = 0.0) -> list[dict[str, Any]]:
    return [one._asdict() for one in tags if one.probability >= least]


def test_texts_get_the_predictors_tags(app: App, predictor: Predictor) -> None:
    answer = tag(app, texts=ASKED, top_k=3)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    expected = predictor.tag(ASKED, 3)
    assert answer.json() == {"documents": [{"labels": as_told(tags)} for tags in expected]}
    (alone,) = predictor.tag(ASKED[:1])
    assert tag(app, text=ASKED[0]).json() == {"documents": [{"labels": as_told(alone)}]}


def test_less_probable_labels_are_left_out(app: App, predictor: Predictor) -> None:
    (tags,) = predictor.tag(ASKED[:1])
    least = tags[2].probability
    answer = tag(app, text=ASKED[0], min_probability=least).json()
    assert answer["documents"][0]["labels"] == as_told(tags, least)
    assert len(as_told(tags, least)) == 3
    assert tag(app, text=ASKED[0], min_probability=1).json() == {"documents": [{"labels": []}]}


def test_reasons_are_the_predictors(app: App, predictor: Predictor) -> None:
    answer = tag(app, texts=ASKED[:2], top_k=2, explain=True).json()
    for text, document in zip(ASKED[:2], answer["documents"], strict=True):
        assert len(document["labels"]) == 2
        for label in document["labels"]:
            terms = predictor.explain(text, label["label"], most=10).terms
            assert label["terms"] == [one._asdict() for one in terms]
            assert terms
    plain = tag(app, texts=ASKED[:2], top_k=2).json()
    assert "terms" not in plain["documents"][0]["labels"][0]


def test_a_text_of_unknown_words_is_answered(app: App, predictor: Predictor) -> None:
    answer = tag(app, text="unheard of", explain=True)
    assert answer.status == 200
    (tags,) = predictor.tag(["unheard of"])
    assert [one["label"] for one in answer.json()["documents"][0]["labels"]] == [
        one.label for one in tags
    ]


def test_answers_are_as_described(app: App) -> None:
    spec = ask(app, "GET", "/openapi.json").json()
    assert spec == openapi(LIMITS)
    schemas = spec["components"]["schemas"]
    for request in ({"texts": ASKED}, {"text": ASKED[0], "explain": True}):
        jsonschema.validate(tag(app, **request).json(), schemas["Answer"])
    refused = tag(app, text="")
    jsonschema.validate(refused.json(), schemas["Error"])
    described = set(spec["paths"]["/tag"]["post"]["responses"])
    assert {str(status) for status in (200, 400, 408, 413, 415, 500, 503)} == described
    paths = {path: set(methods) for path, methods in spec["paths"].items()}
    assert paths.pop("/tag") == {"post"}
    for path, methods in paths.items():
        assert methods == {"get"}
        assert ask(app, "GET", path).status == 200


# method, path, headers, body, status, what the error says
REFUSED: list[tuple[str, str, dict[str, str], bytes, int, str]] = [
    ("GET", "/nothing", {}, b"", 404, "no such path; there are /tag, /healthz"),
    ("POST", "/tag/", JSON, GOOD, 404, "no such path"),
    ("GET", "/../etc/passwd", {}, b"", 404, "no such path"),
    ("GET", "/tag", {}, b"", 405, "/tag takes POST alone"),
    ("PUT", "/tag", JSON, GOOD, 405, "/tag takes POST alone"),
    ("OPTIONS", "/tag", {}, b"", 405, "/tag takes POST alone"),
    ("POST", "/", JSON, GOOD, 405, "/ takes GET or HEAD alone"),
    ("DELETE", "/healthz", {}, b"", 405, "/healthz takes GET or HEAD alone"),
    ("POST", "/tag", {}, GOOD, 415, "Content-Type: application/json"),
    ("POST", "/tag", {"content-type": "text/plain"}, GOOD, 415, "Content-Type"),
    ("POST", "/tag", {"content-type": "application/x-www-form-urlencoded"}, GOOD, 415, "Content-"),
    ("POST", "/tag", {**JSON, "content-encoding": "gzip"}, GOOD, 415, "Content-Encoding"),
    ("POST", "/tag", {**JSON, "content-length": "9" * 30}, GOOD, 413, "larger than 4,194,304"),
    ("POST", "/tag", JSON, b"", 400, "the body is empty"),
    ("POST", "/tag", JSON, b"{", 400, "is not JSON"),
    ("POST", "/tag", JSON, b"\xff", 400, "not UTF-8"),
    ("POST", "/tag", JSON, b'{"texts": []}', 400, "texts is empty"),
    ("POST", "/tag", JSON, b'{"text": "a", "x": 1}', 400, "'x' is no key"),
    ("POST", "/tag", JSON, b'"' + b"a" * (4 << 20) + b'"', 413, "larger than 4,194,304 bytes"),
]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "says"),
    REFUSED,
    ids=[f"{one[0]}-{one[1]}-{one[4]}-{at}" for at, one in enumerate(REFUSED)],
)
def test_refusals(
    app: App,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    says: str,
) -> None:
    answer = ask(app, method, path, body, headers)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]
    known = path if path in ("/", "/healthz", "/tag") else "other"
    assert counted(app, known, status) == 1
    if status == 405:
        assert answer.headers["allow"] in ("POST", "GET, HEAD")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_ways_to_say_json(app: App, kind: str) -> None:
    assert ask(app, "POST", "/tag", GOOD, {"content-type": kind}).status == 200


def test_a_body_in_parts(predictor: Predictor, tmp_path: Path) -> None:
    for app in _served(predictor, tmp_path, limits=Limits(body=len(GOOD))):
        parts = [GOOD[:3], b"", GOOD[3:9], GOOD[9:]]
        assert ask(app, "POST", "/tag", parts, JSON).status == 200
        refused = ask(app, "POST", "/tag", [GOOD, b" "], JSON)
        assert refused.status == 413
        assert refused.headers["connection"] == "close"  # the rest of it is not read


def test_a_body_without_end_is_not_read_for_ever(app: App) -> None:
    answer = ask(app, "POST", "/tag", [b" " * (1 << 20)] * 100, JSON)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


def test_one_who_hangs_up_gets_no_answer(app: App) -> None:
    assert asyncio.run(asked(app, "POST", "/tag", [GOOD[:5]], JSON, hangs_up=True)) is None


def test_a_body_that_does_not_come(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_app, "BODY_SECONDS", 0.05)
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/tag", "headers": headers}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408


def test_pages(app: App) -> None:
    page, docs = ask(app, "GET", "/"), ask(app, "GET", "/docs")
    for one in (page, docs):
        assert one.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in one.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in one.headers["content-security-policy"]
        for outside in (b"http:", b"https:", b"src=", b"@import", b"url("):
            assert outside not in one.body.replace(b"http://127.0.0.1:8000/tag", b"")
    assert b"a model &lt;of&gt; tests" in page.body
    assert b"<script" not in docs.body
    assert ask(app, "HEAD", "/").status == 200


def test_what_goes_wrong_inside_is_not_told(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(serve_batch.Batcher, "_told", broken)
    answer = tag(app, text=ASKED[0])
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body
    assert "secret" in caplog.text  # where the server's owner finds it
    assert counted(app, "/tag", 500) == 1


def test_health_says_what_is_wrong(predictor: Predictor, tmp_path: Path) -> None:
    wrong: list[str | None] = [None, "a shard is gone"]

    async def healthy() -> str | None:
        return wrong.pop(0)

    for app in _served(predictor, tmp_path, healthy=healthy):
        assert ask(app, "GET", "/healthz").json() == {"status": "ok"}
        answer = ask(app, "GET", "/healthz")
        assert (answer.status, answer.json()) == (503, {"error": "a shard is gone"})


class Slow:
    """Tags after a while, so that requests meet; refuses one text."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], int]] = []
        self.go = threading.Event()

    def tag(self, texts: Sequence[str], top_k: int) -> list[list[Tag]]:
        assert self.go.wait(20)
        self.asked.append((list(texts), top_k))
        if "poison" in texts:
            raise LostError("a node") if len(texts) == 1 else ValueError("one of these")
        return [[Tag(len(text), text, 0.5, 0.5)] for text in texts]


def all_at_once(app: App, tagger: Slow, requests: list[dict[str, Any]]) -> list[Answer]:
    """Sends the first, the others while it is computed, then lets the tagger go."""

    async def run() -> list[Answer | None]:
        waiting = []
        for request in requests:
            body = json.dumps(request).encode()
            waiting.append(asyncio.create_task(asked(app, "POST", "/tag", body, JSON)))
            await asyncio.sleep(0.02)
        tagger.go.set()
        return await asyncio.gather(*waiting)

    return [one for one in asyncio.run(run()) if one is not None]


def test_requests_that_meet_are_tagged_together(tmp_path: Path) -> None:
    tagger = Slow()
    for app in _served(tagger, tmp_path):
        requests: list[dict[str, Any]] = [
            {"text": "first"},
            {"texts": ["a", "bb"]},
            {"text": "ccc", "top_k": 9},
            {"text": "dddd", "min_probability": 0.9},
            {"text": "eeeee", "top_k": 9},
        ]
        answers = all_at_once(app, tagger, requests)
        assert [one.status for one in answers] == [200] * 5
        # As many labels go together; the order of the oldest in each is kept.
        assert tagger.asked == [(["first"], 5), (["a", "bb", "dddd"], 5), (["ccc", "eeeee"], 9)]
        names = [
            [[x["name"] for x in d["labels"]] for d in one.json()["documents"]] for one in answers
        ]
        assert names == [[["first"]], [["a"], ["bb"]], [["ccc"]], [[]], [["eeeee"]]]


def test_a_request_does_not_fail_for_another(tmp_path: Path) -> None:
    tagger = Slow()
    for app in _served(tagger, tmp_path):
        answers = all_at_once(
            app, tagger, [{"text": one} for one in ("first", "good", "poison", "fine")]
        )
        assert [one.status for one in answers] == [200, 200, 503, 200]
        assert answers[2].headers["retry-after"] == "1"
        assert "node" not in answers[2].json()["error"]


def test_too_many_waiting_texts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_batch, "WAITING", 4)
    tagger = Slow()
    for app in _served(tagger, tmp_path):
        answers = all_at_once(app, tagger, [{"texts": ["a", "b"]} for _ in range(5)])
        assert [one.status for one in answers] == [200, 200, 200, 503, 503]
        assert "4 texts are waiting" in answers[3].json()["error"]


def test_a_closed_batcher_answers_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    tagger = Slow()
    counts = Counts(tmp_path)
    batcher = Batcher(tagger, counts)  # type: ignore[arg-type]
    app = App(batcher, counts, "")
    assert batcher.alive()
    threading.Timer(0.3, tagger.go.set).start()

    async def run() -> tuple[Answer | None, Answer | None]:
        first = asyncio.create_task(asked(app, "POST", "/tag", GOOD, JSON))
        await asyncio.sleep(0.05)
        ending = asyncio.create_task(asyncio.to_thread(batcher.close))
        await asyncio.sleep(0.05)
        second = await asked(app, "POST", "/tag", GOOD, JSON)
        await ending
        return await first, second

    first, second = asyncio.run(run())
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 503)
    assert not batcher.alive()


def test_only_http_is_served(app: App) -> None:
    with pytest.raises(NotImplementedError, match="websocket"):
        asyncio.run(app({"type": "websocket"}, None, None))  # type: ignore[arg-type]
