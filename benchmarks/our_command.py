"""``ray-xml`` as a command, for what it prints."""

from __future__ import annotations

import subprocess
import sys


def command(arguments: list[str]) -> str:
    """Runs ``ray-xml``; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "ray_xml.cli", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"ray-xml {' '.join(arguments)}:\n{done.stderr}")
    return done.stdout
