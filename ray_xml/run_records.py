"""What a run writes down for others to read while it goes on: metrics.jsonl and progress.json.

Reading them takes nothing of the method, so that whoever only looks at a run starts at once.
"""

from __future__ import annotations

import math
import time
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


def progress_event(
    phase: str,
    epochs: tuple[int, int],
    steps: tuple[int, int],
    began: float | None = None,
    loss: float | None = None,
) -> dict[str, Any]:
    """What ``read_event`` reads.

    Args:
        epochs: done so far, and of the whole run.
        steps: done in the phase, and of the whole phase; documents where it has a speed.
        began: when the phase did, by ``time.perf_counter``; None for one without a speed.
    """
    speed = 0.0 if began is None else steps[0] / max(time.perf_counter() - began, 1e-9)
    return {
        "phase": phase,
        "epoch": epochs[0],
        "epochs": epochs[1],
        "done": steps[0],
        "total": steps[1],
        "docs_per_second": round(speed, 1),
        "loss": loss,
    }


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
