"""Reading configuration: YAML file < ``key=value`` overrides, checked against typed sections.

The sections themselves sit beside the code that consumes them; ``training.RunConfig`` nests them.
Precedence, lowest first: defaults in the section classes, the YAML file, ``key.sub=value``
overrides. An unknown key is an error that names the nearest right one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ray_xml.errors import ConfigError
from ray_xml.json_text import shown
from ray_xml.yaml_text import MOST_BYTES, parse_yaml

_DEEPEST = 10  # sections inside of sections that an override may name
_LONGEST = 100  # characters of a wrong key that are shown and compared with right ones
_MOST_FAULTS = 10  # told of one file


class Section(BaseModel):
    """Base of every config section: immutable, and strict about its keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


T = TypeVar("T", bound=Section)


def load_config(model: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """The config in the YAML file ``path`` with ``key.sub=value`` overrides applied.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, a value is wrong.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file; start from one in configs/, such as default.yaml"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the config file cannot be read: {error}") from error
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{path}: more than {MOST_BYTES:,} bytes: is this a config file?")
    try:
        tree = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    return build_config(model, tree, origin=str(path))


def build_config(model: type[T], tree: Mapping[str, Any], *, origin: str) -> T:
    """``model`` from a nested mapping; ``origin`` names the source in error messages."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        faults = error.errors()
        lines = [_explain(model, item) for item in faults[:_MOST_FAULTS]]
        if len(faults) > _MOST_FAULTS:
            lines.append(f"and {len(faults) - _MOST_FAULTS:,} more")
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


def dump_config(config: Section) -> str:
    """``config`` as YAML text that ``load_config`` reads back to an equal object."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"override {shown(override)}: expected key=value, such as training.epochs=10"
        )
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(
            f"override {shown(override)}: the value is not valid YAML: {error}"
        ) from error
    *parents, leaf = key.split(".")
    if len(parents) > _DEEPEST:
        raise ConfigError(f"override {shown(override)}: no section is {len(parents)} levels deep")
    node = tree
    for depth, part in enumerate(parents):
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(
                f"override {shown(override)}: {'.'.join(parents[: depth + 1])} is a value, "
                "not a section with keys of its own"
            )
    node[leaf] = value


def _explain(model: type[BaseModel], item: Any) -> str:
    """One pydantic complaint in the user's words."""
    place = ".".join(str(part) for part in item["loc"])[:_LONGEST]
    if item["type"] == "extra_forbidden":
        return unknown_key(model, place)
    return f"{place or 'config'}: {item['msg']} (got {shown(item['input'])})"


def unknown_key(model: type[BaseModel], key: str) -> str:
    """Says that ``model`` has no dotted key ``key``, and the nearest one that it has."""
    known = sorted(keys_of(model))
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    leaf = key.rpartition(".")[2]
    near = near or [one for one in known if one.rpartition(".")[2] == leaf][:1]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown key {key!r}{hint}"


def keys_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every dotted key that ``model`` accepts, those of whole sections too."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        keys.add(prefix + name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys |= keys_of(kind, prefix + name + ".")
    return keys
