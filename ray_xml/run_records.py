"""What a run writes down for others to read while it goes on: metrics.jsonl and progress.json.

Reading them takes nothing of the method, so that whoever only looks at a run starts at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray_xml.epoch_line import checked_event, checked_line
from ray_xml.errors import CheckpointError
from ray_xml.json_text import parse_json

METRICS, PROGRESS = "metrics.jsonl", "progress.json"


def read_lines(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, one an epoch, but for those that are none: a line that was cut,
    say.

    Raises:
        CheckpointError: it cannot be read.
    """
    file = run / METRICS
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error})") from error
    lines = []
    for text in raw.split(b"\n"):
        with suppress(KeyError, TypeError, ValueError):
            lines.append(checked_line(parse_json(text)))
    return lines


def read_event(run: Path) -> dict[str, Any] | None:
    """What progress.json says is going on: phase, epoch (done so far), epochs, done and total of
    the phase, docs_per_second, loss; None where there is nothing to be read."""
    try:
        return checked_event(parse_json((run / PROGRESS).read_bytes()))
    except (OSError, ValueError):
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
