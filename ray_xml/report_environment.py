"""Where and with what a report was made: versions, machine, memory, date."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import psutil
import torch

from ray_xml import __version__

_PACKAGES = ("ray", "numpy", "scipy", "scikit-learn", "pyarrow", "faiss-cpu", "faiss-gpu")


def command(arguments: Sequence[str]) -> str:
    """The command line that asked for this, as a shell takes it."""
    return shlex.join(["ray-xml", *arguments])


def versions() -> str:
    """ray_xml, torch and Python."""
    return f"ray_xml {__version__}, torch {torch.__version__}, Python {platform.python_version()}"


def machine() -> str:
    """CPUs, memory and GPUs."""
    parts = [f"{os.cpu_count()} CPUs", f"{psutil.virtual_memory().total / 2**30:.1f} GiB memory"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    return ", ".join([*parts, f"{platform.system()} {platform.machine()}"])


def now() -> str:
    """Date and time, UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def environment() -> str:
    """All of it with the packages' versions, a line each."""
    lines = [
        f"python: {sys.version}",
        f"platform: {platform.platform()}",
        f"machine: {machine()}",
        f"ray_xml: {__version__}",
        f"torch: {torch.__version__}, {torch.get_num_threads()} threads",
    ]
    for package in _PACKAGES:
        try:
            lines.append(f"{package}: {version(package)}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines)
