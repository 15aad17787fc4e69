"""What a run writes down for others to read while it goes on: metrics.jsonl and progress.json.

Reading them takes nothing of the method, so that whoever only looks at a run starts at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

METRICS, PROGRESS = "metrics.jsonl", "progress.json"


def read_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, one an epoch, but for one that was cut."""
    try:
        text = (run / METRICS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for one in text.splitlines():
        with suppress(ValueError, RecursionError):
            line = json.loads(one)
            if isinstance(line, dict) and isinstance(line.get("epoch"), int):
                lines.append(line)
    return lines


def read_event(run: Path) -> dict[str, Any] | None:
    """What progress.json says is going on: phase, epoch (done so far), epochs, done and total of
    the phase, docs_per_second, loss; None where there is nothing to be read."""
    try:
        tree = json.loads((run / PROGRESS).read_text(encoding="utf-8"))
        return dict(tree)
    except (OSError, ValueError, TypeError):
        return None


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of an epoch's line by slash-separated name, such as ``validation/P@1``;
    without the epoch's own number and the best one's."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            if key != "best":
                found |= {f"{key}/{name}": number for name, number in scalars(value).items()}
        elif isinstance(value, (int, float)) and key != "epoch" and math.isfinite(value):
            found[key] = float(value)
    return found
