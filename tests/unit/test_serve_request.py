"""Requests to tag texts: what is taken, and what is refused how."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from ray_xml.serve_openapi import openapi
from ray_xml.serve_request import LIMITS, Limits, RefusedError, Request, parse

SMALL = Limits(body=4096, texts=3, characters=20, top_k=7, explained=6)

GOOD: list[tuple[dict[str, Any], Request]] = [
    ({"text": "a"}, Request(("a",))),
    ({"texts": ["a", "b"]}, Request(("a", "b"))),
    ({"texts": ["é", "漢字", "😀"], "top_k": 7}, Request(("é", "漢字", "😀"), 7)),
    ({"text": " a ", "min_probability": 1}, Request((" a ",), min_probability=1.0)),
    ({"text": "a", "min_probability": 0.25}, Request(("a",), min_probability=0.25)),
    ({"text": "a", "explain": True, "top_k": 6}, Request(("a",), 6, explain=True)),
    ({"text": "a" * 20}, Request(("a" * 20,))),
]
# body, status, what the message says
BAD: list[tuple[bytes, int, str]] = [
    (b"", 400, "the body is empty"),
    (b" \n", 400, "the body is empty"),
    (b"{", 400, "is not JSON"),
    (b'{"text": "a"} b', 400, "is not JSON"),
    (b"\xff\xfe{}", 400, r"not UTF-8 \(at byte 0\)"),
    ('{"text": "é"}'.encode("latin-1"), 400, r"not UTF-8 \(at byte 10\)"),
    ('{"text": "a"}'.encode("utf-16"), 400, "not UTF-8"),
    ('{"text": "a"}'.encode("utf-8-sig"), 400, "is not JSON"),
    (b"[" * 100_000, 400, "is not JSON: nested too deep"),
    (b'{"top_k": ' + b"9" * 5000 + b"}", 400, "is not JSON"),
    (b"[]", 400, "the body is an array"),
    (b'"a"', 400, "the body is a string"),
    (b"null", 400, "the body is null"),
    (b"{}", 400, "either text or texts"),
    (b'{"text": "a", "texts": ["b"]}', 400, "either text or texts"),
    (b'{"text": "a", "topk": 3}', 400, "'topk' is no key"),
    (b'{"text": null}', 400, "text is null"),
    (b'{"text": 3}', 400, "text is a number"),
    (b'{"text": ["a"]}', 400, "text is an array"),
    (b'{"text": {"a": 1}}', 400, "text is an object"),
    (b'{"text": ""}', 400, "text is blank"),
    (b'{"text": " \\n "}', 400, "text is blank"),
    (b'{"texts": "a"}', 400, "texts is a string"),
    (b'{"texts": []}', 400, "texts is empty"),
    (b'{"texts": ["a", 1]}', 400, r"texts\[1\] is a number"),
    (b'{"texts": ["a", ""]}', 400, r"texts\[1\] is blank"),
    (b'{"texts": ["a", "\\ud800"]}', 400, r"texts\[1\] holds half a surrogate pair"),
    (b'{"texts": ["a", "b", "c", "d"]}', 413, "4 texts; a request may have 3"),
    (b'{"text": "' + b"a" * 21 + b'"}', 413, "21 characters; it may have 20"),
    (b'{"text": "a", "top_k": 0}', 400, "top_k is 0"),
    (b'{"text": "a", "top_k": 8}', 400, "top_k is 8; give a whole number from 1 to 7"),
    (b'{"text": "a", "top_k": 2.5}', 400, "top_k is 2.5"),
    (b'{"text": "a", "top_k": "5"}', 400, "top_k is '5'"),
    (b'{"text": "a", "top_k": true}', 400, "top_k is True"),
    (b'{"text": "a", "top_k": null}', 400, "top_k is None"),
    (b'{"text": "a", "min_probability": -0.1}', 400, "min_probability is -0.1"),
    (b'{"text": "a", "min_probability": 1.1}', 400, "min_probability is 1.1"),
    (b'{"text": "a", "min_probability": NaN}', 400, "min_probability is nan"),
    (b'{"text": "a", "min_probability": 1e999}', 400, "min_probability is inf"),
    (b'{"text": "a", "min_probability": "1"}', 400, "min_probability is '1'"),
    (b'{"text": "a", "explain": 1}', 400, "explain is a number"),
    (b'{"text": "a", "explain": true, "top_k": 7}', 413, "more than the 6 labels"),
    (b'{"texts": ["a", "b"], "explain": true, "top_k": 4}', 413, "more than the 6 labels"),
    (
        b'{"texts": ["%b", "b"], "explain": true, "top_k": 3}' % (b"a" * 20),
        413,
        "the texts together",
    ),
]


@pytest.mark.parametrize(("tree", "expected"), GOOD)
def test_what_is_taken(tree: dict[str, Any], expected: Request) -> None:
    assert parse(json.dumps(tree).encode(), SMALL) == expected
    assert parse(json.dumps(tree, ensure_ascii=False).encode(), SMALL) == expected


@pytest.mark.parametrize(("body", "status", "says"), BAD, ids=lambda one: repr(one)[:40])
def test_what_is_refused(body: bytes, status: int, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as raised:
        parse(body, SMALL)
    assert raised.value.status == status
    assert len(str(raised.value)) < 600


def test_the_description_takes_and_refuses_what_is_taken_and_refused() -> None:
    spec = openapi(SMALL)
    check = jsonschema.Draft202012Validator(spec["components"]["schemas"]["Request"])
    for tree, _ in GOOD:
        check.validate(tree)
    for body, _, says in BAD:
        try:
            tree = json.loads(body.decode())
        except (ValueError, RecursionError):
            continue
        # What a schema cannot say.
        if (
            says.startswith(("more than the", "the texts together", "min_probability is nan"))
            or "surrogate" in says
        ):
            continue
        assert not check.is_valid(tree), tree


def test_a_hostile_value_is_told_in_few_characters() -> None:
    for value in ("x" * 100_000, [[1] * 1000] * 1000, {"a" * 5000: 1}, 10**4000):
        for key in ("top_k", "min_probability", "text"):
            tree = {"text": "a", key: value}
            with pytest.raises(RefusedError) as raised:
                parse(json.dumps(tree).encode(), SMALL)
            assert len(str(raised.value)) < 600
    with pytest.raises(RefusedError) as raised:
        parse(json.dumps({"k" * 100_000: 1}).encode(), LIMITS)
    assert len(str(raised.value)) < 600
