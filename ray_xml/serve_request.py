"""A request to tag texts: what it may say, and what is refused.

{"texts": ["…", "…"]}                     or {"text": "…"}, and besides, all optional,
{"top_k": 5, "min_probability": 0.1, "explain": true}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ray_xml.json_text import parse_json, shown

TOP_K = 5  # where a request does not say
KEYS = ("text", "texts", "top_k", "min_probability", "explain")


class RefusedError(Exception):
    """A request that gets no answer but why.

    Attributes:
        status: the HTTP status, 4xx or 5xx.
        headers: to send with it.
    """

    def __init__(
        self, status: HTTPStatus, why: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(why)
        self.status, self.headers = status, dict(headers or {})


@dataclass(frozen=True)
class Limits:
    """How much one request may ask for.

    Attributes:
        body: bytes of it.
        texts, characters: texts in it; characters of each.
        top_k: labels of each text.
        explained: labels that are explained, over all texts, which may then have as many
            characters together as one: reasons take a prediction a word.
    """

    body: int = 4 << 20
    texts: int = 256
    characters: int = 100_000
    top_k: int = 100
    explained: int = 50


LIMITS = Limits()


@dataclass(frozen=True)
class Request:
    """A sound request.

    Attributes:
        texts: at least one, none of them blank.
        min_probability: labels below are left out.
        explain: tell the words that speak for and against each label.
    """

    texts: tuple[str, ...]
    top_k: int = TOP_K
    min_probability: float = 0.0
    explain: bool = False


def parse(body: bytes, limits: Limits) -> Request:
    """The request in a body.

    Raises:
        RefusedError: with status 400 or, of what is too large, 413.
    """
    if not body.strip():
        raise _bad('the body is empty; send JSON such as {"text": "…"}')
    try:
        tree = parse_json(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 (at byte {error.start})") from error
    except ValueError as error:
        raise _bad(f"the body is not JSON: {str(error)[:200]}") from error
    if not isinstance(tree, dict):
        raise _bad(f'the body is {_kind(tree)}; send an object such as {{"text": "…"}}')
    for key in tree:
        if key not in KEYS:
            raise _bad(f"{shown(key)} is no key of a request; there are {', '.join(KEYS)}")
    texts = _texts(tree, limits)
    top_k = tree.get("top_k", TOP_K)
    if type(top_k) is not int or not 1 <= top_k <= limits.top_k:
        raise _bad(f"top_k is {shown(top_k)}; give a whole number from 1 to {limits.top_k}")
    least = tree.get("min_probability", 0.0)
    if type(least) not in (int, float) or not 0 <= least <= 1:
        raise _bad(f"min_probability is {shown(least)}; give a number from 0 to 1")
    explain = tree.get("explain", False)
    if type(explain) is not bool:
        raise _bad(f"explain is {_kind(explain)}; give true or false")
    if explain and len(texts) * top_k > limits.explained:
        raise _large(
            f"explain: {len(texts)} texts with {top_k} labels each are more than the "
            f"{limits.explained} labels that a request may have explained; send fewer texts, or a "
            "smaller top_k"
        )
    if explain and sum(map(len, texts)) > limits.characters:
        raise _large(
            f"explain: the texts together may have {limits.characters:,} characters; send fewer"
        )
    return Request(texts, top_k, float(least), explain)


def _texts(tree: dict[str, Any], limits: Limits) -> tuple[str, ...]:
    if ("text" in tree) == ("texts" in tree):
        raise _bad("give either text or texts")
    if "text" in tree:
        return (_text(tree["text"], "text", limits),)
    texts = tree["texts"]
    if not isinstance(texts, list):
        raise _bad(f"texts is {_kind(texts)}; give an array of strings")
    if not texts:
        raise _bad("texts is empty; give one text at least")
    if len(texts) > limits.texts:
        raise _large(f"{len(texts):,} texts; a request may have {limits.texts:,}")
    return tuple(_text(text, f"texts[{at}]", limits) for at, text in enumerate(texts))


def _text(text: Any, where: str, limits: Limits) -> str:
    if not isinstance(text, str):
        raise _bad(f"{where} is {_kind(text)}; give a string")
    if len(text) > limits.characters:
        raise _large(f"{where} has {len(text):,} characters; it may have {limits.characters:,}")
    if not text or text.isspace():
        raise _bad(f"{where} is blank; give a text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _bad(f"{where} holds half a surrogate pair, which is no character") from error
    return text


def _bad(why: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, why)


def _large(why: str) -> RefusedError:
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)


def _kind(value: Any) -> str:
    """What JSON calls it."""
    if value is None:
        return "null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return kinds.get(type(value), "an object" if isinstance(value, dict) else "an array")
