"""What the server tells of itself: an OpenAPI 3.1 description."""

from __future__ import annotations

from typing import Any

from ray_xml import __version__
from ray_xml.serve_request import TOP_K, Limits

_ERRORS = {
    "400": "the body is no sound request; the message says what is wrong",
    "408": "the body did not come in time",
    "413": "too large: the body, a text, the number of texts or what is to be explained",
    "415": "the body is not declared as application/json",
    "500": "something is wrong with the server",
    "503": "the server is busy, stopping, or cannot reach some of the labels; try again",
}


def openapi(limits: Limits) -> dict[str, Any]:
    """The description of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ray_xml",
            "version": __version__,
            "description": "The labels of texts, out of thousands to millions.",
        },
        "paths": {
            "/tag": {
                "post": {
                    "operationId": "tag",
                    "summary": "labels for texts, most probable first",
                    "requestBody": {"required": True, "content": _json("Request")},
                    "responses": {
                        "200": {"description": "labels of each text", "content": _json("Answer")},
                        **{status: _failure(what) for status, what in _ERRORS.items()},
                    },
                }
            },
            "/healthz": _get("health", "whether the server answers", "application/json", "503"),
            "/metrics": _get("metrics", "counters in Prometheus' text format", "text/plain"),
            "/openapi.json": _get("openapi", "this description", "application/json"),
            "/": _get("page", "a page to try it", "text/html"),
            "/docs": _get("docs", "this description as a page", "text/html"),
        },
        "components": {"schemas": _schemas(limits)},
    }


def _schemas(limits: Limits) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": limits.characters, "pattern": r"\S"}
    number, share = {"type": "number"}, {"type": "number", "minimum": 0, "maximum": 1}
    term = {"term": {"type": "string"}, "contribution": {**number, "description": "in log-odds"}}
    label = {
        "label": {"type": "integer", "minimum": 0, "description": "its number"},
        "name": {"type": ["string", "null"], "description": "null where labels have no names"},
        "probability": {**share, "description": "that it is right"},
        "score": {**share, "description": "what labels are ordered by"},
        "terms": {
            "type": "array",
            "items": _object(term),
            "description": "with explain: objects with term and contribution, the log-odds that "
            "the score loses without that term of the text",
        },
    }
    required = [key for key in label if key != "terms"]
    labels = {"type": "array", "items": _object(label, required)}
    documents = {"type": "array", "items": _object({"labels": labels})}
    return {
        "Request": {
            **_object(
                {
                    "text": {**text, "description": "one text"},
                    "texts": {
                        "type": "array", "items": text, "minItems": 1, "maxItems": limits.texts,
                        "description": "or several",
                    },
                    "top_k": {
                        "type": "integer", "minimum": 1, "maximum": limits.top_k,
                        "default": TOP_K, "description": "labels of each text at most",
                    },
                    "min_probability": {
                        **share, "default": 0, "description": "leave out labels below",
                    },
                    "explain": {
                        "type": "boolean", "default": False,
                        "description": "tell the terms that speak for and against each label; "
                        f"of {limits.explained} labels at most (texts times top_k), in texts of "
                        f"{limits.characters:,} characters together",
                    },
                },
                [],
            ),
            "oneOf": [{"required": ["text"]}, {"required": ["texts"]}],
            "description": f"at most {limits.body:,} bytes, UTF-8",
        },
        "Answer": _object({"documents": {**documents, "description": "one a text, in order"}}),
        "Error": _object({"error": {"type": "string"}}),
    }  # fmt: skip


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _failure(what: str) -> dict[str, Any]:
    return {"description": what, "content": _json("Error")}


def _get(name: str, what: str, kind: str, *failures: str) -> dict[str, Any]:
    schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
    answers = {"200": {"description": what, "content": {kind: {"schema": schema}}}}
    answers |= {status: _failure(_ERRORS[status]) for status in failures}
    return {"get": {"operationId": name, "summary": what, "responses": answers}}
