"""A line of metrics.jsonl and an event of progress.json, with every value of the type that its
readers take it for."""

from __future__ import annotations

from typing import Any

from ray_xml.json_text import MOST, count_of, shown

_NUMBERS = ("loss", "docs_per_second", "candidate_recall")


def checked_line(tree: Any) -> dict[str, Any]:
    """``tree``, an epoch's report.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"{shown(tree)} is no table")
    count_of(tree.get("epoch"))
    for key in _NUMBERS:
        if key in tree:
            _number(key, tree[key])
    for key in ("seconds", "validation"):
        if tree.get(key) is not None:
            if not isinstance(tree[key], dict):
                raise ValueError(f"{key} is {shown(tree[key])}, no table")
            for name, value in tree[key].items():
                _number(f"{key}.{name}"[:80], value)
    if tree.get("best") is not None and not isinstance(tree["best"], dict):
        raise ValueError(f"best is {shown(tree['best'])}, no table")
    return tree


def checked_event(tree: Any) -> dict[str, Any]:
    """``tree``, what progress.json says is going on.

    Raises:
        ValueError: it says nothing of the kind.
    """
    if not isinstance(tree, dict):
        raise ValueError(f"{shown(tree)} is no table")
    for key in ("epoch", "epochs", "done", "total"):
        count_of(tree.get(key))
    _number("docs_per_second", tree.get("docs_per_second"))
    if tree.get("loss") is not None:
        _number("loss", tree["loss"])
    if not isinstance(tree.get("phase"), str):
        raise ValueError(f"phase is {shown(tree.get('phase'))}, no text")
    return tree


def _number(key: str, value: Any) -> None:
    # A float may be NaN or infinite: a loss may have been.
    if type(value) is not float and not (type(value) is int and abs(value) <= MOST):
        raise ValueError(f"{key} is {shown(value)}, no number")
