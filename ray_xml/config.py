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


class Section(BaseModel):
    """Base of every config section: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


T = TypeVar("T", bound=Section)


def load_config(model: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """The config in the YAML file ``path`` with ``key.sub=value`` overrides applied.

    Raises:
        ConfigError: the file is missing or no YAML mapping, a key is unknown, a value is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file; start from one in configs/, such as default.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the config file cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(tree).__name__}")
    for override in overrides:
        _apply(tree, override)
    return build_config(model, tree, origin=str(path))


class _TwiceError(Exception):
    def __init__(self, key: str, first: int, second: int) -> None:
        super().__init__(f"the key {key!r} is given twice, in lines {first} and {second}")


class _Loader(yaml.SafeLoader):
    """YAML without a key given twice, of which YAML's loader would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                line = key.start_mark.line + 1
                if (key.tag, key.value) in lines:
                    raise _TwiceError(key.value, lines[key.tag, key.value], line)
                lines[key.tag, key.value] = line
        return super().construct_mapping(node, deep)


def parse_yaml(text: str | bytes, origin: str) -> Any:
    """Plain values out of YAML text; ``origin`` names the source in error messages.

    Raises:
        ConfigError: it is no YAML, or a mapping has a key twice.
    """
    try:
        return yaml.load(text, _Loader)
    except _TwiceError as error:
        raise ConfigError(f"{origin}: {error}; keep one of them") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from error


def build_config(model: type[T], tree: Mapping[str, Any], *, origin: str) -> T:
    """``model`` from a nested mapping; ``origin`` names the source in error messages."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


def dump_config(config: Section) -> str:
    """``config`` as YAML text that ``load_config`` reads back to an equal object."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: expected key=value, such as training.epochs=10")
    value = parse_yaml(text, f"override {override!r}")
    *parents, leaf = key.split(".")
    node = tree
    for depth, part in enumerate(parents):
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(
                f"override {override!r}: {'.'.join(parents[: depth + 1])} is a value, "
                "not a section with keys of its own"
            )
    node[leaf] = value


def _explain(model: type[BaseModel], item: Any) -> str:
    """One pydantic complaint in the user's words."""
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return unknown_key(model, place)
    return f"{place or 'config'}: {item['msg']} (got {item['input']!r})"


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
