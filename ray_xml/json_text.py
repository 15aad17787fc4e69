"""JSON as artefacts hold it: parsing, and counts out of it, where nothing is to be trusted.

``json`` refuses most bad texts with a ValueError, but runs out of stack on deep nesting, and what
it returns may be of any type and size.
"""

from __future__ import annotations

import json
from typing import Any

MOST = 2**53  # the largest count taken: beyond, JSON's numbers are not exact elsewhere


def parse_json(text: str | bytes) -> Any:
    """The tree of a JSON text.

    Raises:
        ValueError: it is none, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def count_of(value: Any, most: int = MOST) -> int:
    """``value``, a whole number from 0 to ``most``.

    Raises:
        ValueError: it is anything else (a bool, too).
    """
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{shown(value)} is no whole number from 0 to {most:,}")
    return value


def shown(value: Any) -> str:
    """Any value of a tree in few characters, for messages.

    Neither depth nor size matters: whole containers are never written out.
    """
    if isinstance(value, (dict, list)):
        kind = "mapping" if isinstance(value, dict) else "list"
        return repr(value) if not value else f"a {kind} of {len(value):,}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value[:80]) + "..." if isinstance(value, str) and len(value) > 80 else repr(value)
    return text if len(text) <= 500 else f"{text[:80]}..."
