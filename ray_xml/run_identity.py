"""Which run a config describes: what of it changes what an epoch computes, and what is free.

It works on the config as plain values, as config.yaml holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Keys that may differ when a run goes on: they do not change what an epoch computes. But for
# training.epochs under schedule=linear, which falls to zero over them.
_FREE_ON_RESUME = {
    "data", "run", "resources", "logging", "tune", "training.epochs", "training.keep_checkpoints",
}  # fmt: skip


def identity(tree: Mapping[str, Any]) -> str:
    """A hash of every key that changes what an epoch computes."""
    text = json.dumps(without_free(tree), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_free(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the keys that may differ when a run goes on."""
    kept = {key: value for key, value in tree.items() if key not in _FREE_ON_RESUME}
    linear = tree["training"]["schedule"] == "linear"
    for dotted in _FREE_ON_RESUME - ({"training.epochs"} if linear else set()):
        section, _, leaf = dotted.partition(".")
        if leaf and section in kept:
            kept[section] = {k: v for k, v in kept[section].items() if k != leaf}
    return kept


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
