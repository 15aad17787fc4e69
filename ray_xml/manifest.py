"""What a checkpoint's manifest says, with every value of the type that its readers take it for.

Which keys there must be depends on the reader: asking for one that is missing is an error that
says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray_xml.epoch_line import checked_line
from ray_xml.errors import CheckpointError
from ray_xml.json_text import MOST, count_of, shown


class Manifest(dict[str, Any]):
    """The keys and values of the manifest in the file ``path``."""

    def __init__(self, tree: Mapping[str, Any], path: Path) -> None:
        super().__init__(tree)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise CheckpointError(
            f"{self._path}: damaged (no {key!r}); use another checkpoint of the run"
        )


def checked_manifest(tree: Mapping[str, Any], path: Path) -> Manifest:
    """``tree``, read from ``path``, with the values of all known keys checked.

    Raises:
        ValueError: one is of a wrong type or out of range.
    """
    found = Manifest(tree, path)
    for key, check in _KEYS.items():
        if key in found:
            try:
                check(found[key])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{key} is wrong: {error}") from error
    line = found.get("line")
    if line is not None and line["epoch"] != found.get("epoch"):
        raise ValueError(f"line is wrong: it is of epoch {line['epoch']}")
    return found


def _width(value: Any) -> None:
    count_of(value, 2**31 - 1)


def _is(*kinds: type) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        # A bool is an int to Python, but not to whoever counts.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{shown(value)} is no {kinds[0].__name__}")

    return check


def _optional(check: Callable[[Any], object]) -> Callable[[Any], None]:
    def checked(value: Any) -> None:
        if value is not None:
            check(value)

    return checked


def _texts(value: Any) -> None:
    _is(list)(value)
    for one in value:
        _is(str)(one)


def _data_set(value: Any) -> None:
    _is(dict)(value)
    for key in ("name", "checksum"):
        _is(str)(value.get(key))


def _number(value: Any) -> None:
    _is(float, int)(value)
    if not -MOST <= value <= MOST:
        raise ValueError(f"{shown(value)} is no finite number")


def _numbers(value: Any) -> None:
    _is(dict)(value)
    for one in value.values():
        _number(one)


def _sha256(value: Any) -> None:
    if not isinstance(value, str) or re.fullmatch("[0-9a-f]{64}", value) is None:
        raise ValueError(f"{shown(value)} is no SHA-256")


def _parts(value: Any) -> None:
    _is(dict)(value)
    for part in value.values():
        _is(dict)(part)
        count_of(part.get("bytes"))
        _sha256(part.get("sha256"))


def _version(value: Any) -> None:
    if not isinstance(value, str) or len(value) > 80:
        raise ValueError(f"{shown(value)} is no version")


_KEYS: dict[str, Callable[[Any], None]] = {
    "epoch": _width,
    "num_features": _width,
    "num_labels": _width,
    "dim": _width,
    "workers": _width,
    "best_epoch": _optional(_width),
    "best_value": _optional(_number),
    "with_proxies": _is(bool),
    "exact": _texts,
    "data_set": _data_set,
    "adam_steps": _numbers,
    "parts": _parts,
    "line": _optional(checked_line),
    "ray_xml": _version,
    "seal": _sha256,
}
