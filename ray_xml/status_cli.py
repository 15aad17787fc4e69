"""``ray-xml status``: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_xml.run_status import Status

_SHOWN = 5  # epochs of the table
_POLL_SECONDS = 1.0


def add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line's."""
    parser = commands.add_parser("status", help="how a run stands: going on, how far, what it has")
    parser.add_argument("run", help="a run folder")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object; with --follow, one a change"
    )
    parser.add_argument(
        "--follow", action="store_true", help="stay, and show progress until the run ends"
    )
    parser.add_argument(
        "--check", action="store_true", help="read every byte of the checkpoints for damage"
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    from ray_xml.run_status import status_of

    status = status_of(options.run, check=options.check)
    print(json.dumps(status.as_dict()) if options.json else describe(status), flush=True)
    if options.follow and status.driver is not None:
        if options.json:
            _follow_json(options.run, status)
        else:
            _follow(options.run)
    return 0


def _follow(folder: str) -> None:
    from pathlib import Path

    from ray_xml.console import Watcher
    from ray_xml.follow import Follower
    from ray_xml.run_lock import driver_of
    from ray_xml.run_status import status_of

    path = Path(folder).resolve()
    with Follower(path, [Watcher()], own=False):
        while driver_of(path) is not None:
            time.sleep(_POLL_SECONDS)
    print(_first_lines(status_of(folder)))


def _follow_json(folder: str, status: Status) -> None:
    from ray_xml.run_status import status_of

    while status.driver is not None:
        time.sleep(_POLL_SECONDS)
        now = status_of(folder)
        if (now.progress, now.lines, now.driver) != (status.progress, status.lines, status.driver):
            print(json.dumps(now.as_dict()), flush=True)
        status = now


def describe(status: Status) -> str:
    """The status as a text of some lines."""
    from ray_xml.run_text import describe_epoch

    parts = [_first_lines(status)]
    if status.lines:
        epochs = [describe_epoch(line) for line in status.lines[-_SHOWN:]]
        left_out = len(status.lines) - len(epochs)
        parts.append("\n".join([f"({left_out} epochs before)"] * (left_out > 0) + epochs))
    if status.best is not None:
        best = status.best
        value = "" if best["value"] is None else f", {best['value']:.2f}"
        parts.append(f"best by {best['metric']} on validation: epoch {best['epoch']}{value}")
    parts.append(_disk(status))
    return "\n\n".join(parts)


def _first_lines(status: Status) -> str:
    from ray_xml.run_text import describe_event

    lines = [f"{status.run}: {status.state}, {status.done} of {status.total} epochs done"]
    if status.driver is not None and status.driver.pid is not None:
        lines[0] += f" (process {status.driver.pid} on {status.driver.host})"
    if status.state == "stopped":
        lines[0] += "; `ray-xml train` with its run folder goes on"
    if status.progress is not None:
        lines.append(f"now   {describe_event(status.progress, status.lines)}")
    elif status.driver is not None:
        lines.append("now   starting")
    return "\n".join([*lines, f"data  {status.data}", f"config {status.identity}"])


def _disk(status: Status) -> str:
    lines = []
    best = status.best["epoch"] if status.best else None
    for one in status.checkpoints:
        name = f"epoch {one.epoch:>3}  {_size(one.bytes):>9}"
        if one.aside:
            name += "  damaged, set aside"
        elif one.damage is not None:
            name += f"  damaged: {one.damage}"
        else:
            name += "  best" * (one.epoch == best) + "  predicts" * one.predicts
        lines.append(name)
    lines = ["checkpoints", *lines] if lines else ["no checkpoint yet"]
    return "\n".join([*lines, f"{_size(status.free)} free on its disk"])


def _size(number: int) -> str:
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
