"""A run's epochs and progress in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def describe_epoch(line: Mapping[str, Any]) -> str:
    """One epoch's report, a line of ``read_lines``, in a line of text; what is not in it is left
    out."""
    text = f"epoch {line['epoch']:>3}"
    if "loss" in line:
        text += f"  loss {line['loss']:.4f}"
    if line.get("seconds"):
        text += f"  {duration(sum(line['seconds'].values()))}"
    if "docs_per_second" in line:
        text += f"  {line['docs_per_second']:,.0f} docs/s"
    checked = line.get("validation")
    if checked:
        shown = [key for key in ("P@1", "P@5", "PSP@5") if key in checked]
        text += "  validation " + " ".join(f"{key} {checked[key]:.2f}" for key in shown)
    if "candidate_recall" in line:
        text += f"  candidate recall {line['candidate_recall']:.1f}"
    return text


def describe_event(event: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """What is going on, in a line of text; ``lines`` are those of the epochs done."""
    text = f"epoch {min(event['epoch'] + 1, event['epochs'])}/{event['epochs']}"
    text += f"  {event['phase']}"
    if event["total"] > 1:
        text += f"  {event['done']:,}/{event['total']:,}"
    if event["docs_per_second"]:
        text += f"  {event['docs_per_second']:,.0f} docs/s"
    if event.get("loss") is not None:
        text += f"  loss {event['loss']:.3f}"
    left = seconds_left(event, lines)
    return text if left is None else f"{text}  about {duration(left)} left"


def seconds_left(event: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> float | None:
    """From the time that the epochs so far took, start-up and refreshes included; None before the
    first one."""
    if not lines:
        return None
    spent: list[float] = [
        sum(v for k, v in line.get("seconds", {}).items() if k != "setup") for line in lines[-4:]
    ]
    mean = sum(spent) / len(spent)
    within = event["done"] / max(event["total"], 1) if event["phase"] == "classifier" else 0.0
    return max(mean * float(event["epochs"] - event["epoch"] - within), 0.0)


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(number: float, thing: str) -> str:
    """``1 trial``, ``2 trials``; of what comes in parts, ``0.5 CPUs``."""
    told = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{told} {thing}" if number == 1 else f"{told} {thing}s"
