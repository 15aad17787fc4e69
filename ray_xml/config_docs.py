"""The reference of every config key, docs/config.md, out of the schema that checks configs.

    python -m ray_xml.config_docs > docs/config.md

Types, defaults and limits are those of ``RunConfig``'s JSON schema; what a key means is what the
docstring of its class says under "Attributes:". So there is one place to change, and a key without
a meaning is an error here.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from ray_xml.config import Section
from ray_xml.run_config import RunConfig
from ray_xml.tune_config import Domain

_HEAD = """# Every key of a config

<!-- Made by `python -m ray_xml.config_docs > docs/config.md`: change the classes, not this. -->

A config is a YAML file; any key can be given on the command line as well, as `section.key=value`,
which comes after the file:

    ray-xml train configs/default.yaml data=data/mine run=runs/mine training.epochs=20

An unknown key or a value outside of its limits is an error that names the key, before anything
starts. The defaults here hold where a file says nothing. `configs/default.yaml` leaves more to the
data than they do: start from it. `null` and `auto` mean "from the data"; what that came to is in
the `config.yaml` of the run folder.
"""
_ENTRY = re.compile(r" {4}(\w+): (.+)")
_LIMITS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}
_KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}


def page() -> str:
    """The whole page, in Markdown.

    Raises:
        ValueError: a key whose meaning no docstring tells, or a docstring's key that there is not.
    """
    parts = [_HEAD]
    for place, kind in _sections(RunConfig):
        parts.append(_part(f"`{place}`" if place else "The run itself", kind, place))
    parts.append(_part("A domain of `tune.space`", Domain, ""))
    return "\n".join(parts)


def meanings(kind: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of ``kind`` and of the sections it derives from say of each key."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if issubclass(one, Section) and one is not Section:
            found |= _attributes(inspect.cleandoc(one.__doc__ or ""))
    keys = {key for key, _ in _own_keys(kind)}
    if found.keys() != keys:
        wrong = ", ".join(sorted(found.keys() ^ keys))
        raise ValueError(f"{kind.__name__}: keys and the docstring's Attributes differ in {wrong}")
    return found


def _sections(kind: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """(dotted name, class) of ``kind`` and of every section inside of it."""
    yield above, kind
    for name, field in kind.model_fields.items():
        if _is_section(field.annotation):
            assert isinstance(field.annotation, type)
            yield from _sections(field.annotation, f"{above}.{name}" if above else name)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _own_keys(kind: type[BaseModel]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, JSON schema) of every key of ``kind`` that is no section."""
    schema = kind.model_json_schema()["properties"]
    for name, field in kind.model_fields.items():
        if not _is_section(field.annotation):
            yield name, schema[name]


def _attributes(docstring: str) -> dict[str, str]:
    _, _, below = docstring.partition("Attributes:\n")
    found: dict[str, str] = {}
    last = ""
    for line in below.splitlines():
        if entry := _ENTRY.fullmatch(line):
            last = entry[1]
            found[last] = entry[2]
        elif line.startswith(" " * 8):
            found[last] += f" {line.strip()}"
        else:
            break  # a paragraph behind the list
    return found


def _part(title: str, kind: type[BaseModel], place: str) -> str:
    summary = inspect.cleandoc(kind.__doc__ or "").split("\n\nAttributes:")[0]
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    said = meanings(kind)
    for name, schema in _own_keys(kind):
        key = f"{place}.{name}" if place else name
        cells = (f"`{key}`", _value(schema), _default(schema), _marked(said[name]))
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return f"## {title}\n\n{_marked(summary)}\n\n" + "\n".join(rows) + "\n"


def _value(schema: Mapping[str, Any]) -> str:
    """What the key takes, limits included."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_value(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "additionalProperties" in schema:
        return "keys, each with a domain (below)"
    if "prefixItems" in schema:
        low, high = (_value(one) for one in schema["prefixItems"])
        return f"[{low}, {high}]"
    if schema.get("type") == "array":
        return "a list"
    if schema.get("type") == "null":
        return "`null`"
    limits = [text.format(schema[key]) for key, text in _LIMITS.items() if key in schema]
    return " ".join([_KINDS[schema["type"]], ", ".join(limits)]).strip()


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return "none" if "additionalProperties" in schema else ""
    value = schema["default"]
    return "" if value == "" else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _marked(text: str) -> str:
    """A docstring's text as Markdown: YAML's word for None, and links to pages."""
    text = re.sub(r"\bNone\b", "`null`", text.replace("``", "`"))
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


if __name__ == "__main__":
    print(page(), end="")
