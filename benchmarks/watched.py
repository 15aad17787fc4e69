"""Commands of ``ray-xml``, run as processes of their own and measured."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import process_tree


def watched(arguments: list[str], log: Path) -> process_tree.Usage:
    """Runs ``ray-xml`` and measures it."""
    environment = {"RAY_AUTH_MODE": "disabled", **os.environ}
    command = [sys.executable, "-m", "ray_xml.cli", *arguments]
    usage = process_tree.run(command, env=environment, log=log)
    if usage.status != 0:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])
        raise SystemExit(f"ray-xml {arguments[0]} ended with status {usage.status}:\n{tail}")
    return usage
