"""A virtual environment for each peer, made once and used again.

The peers ask for different versions of numpy, and for other ones than ray_xml, so none of them can
be installed beside it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_READY = "bench-requirements.json"

# Where to look in a failed installation's output for the line that says why.
_SAYS_WHY = ("error:", "no matching distribution", "could not")


class InstallError(Exception):
    """A peer could not be installed; the message says why."""


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def prepare(folder: Path, requirements: Sequence[str], bare: Sequence[str]) -> Path:
    """Makes the environment in ``folder`` unless it is there with the same requirements.

    Args:
        folder: of the environment; replaced if it holds another one.
        requirements: pinned packages.
        bare: pinned packages to install without what they depend on.

    Returns:
        its python.

    Raises:
        InstallError: it cannot be made. What was made of it is removed.
    """
    wanted = json.dumps({"python": sys.version, "requirements": [*requirements], "bare": [*bare]})
    ready = folder / _READY
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return python_of(folder)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _call([sys.executable, "-m", "venv", str(folder)])
        install = [str(python_of(folder)), "-m", "pip", "install", "--quiet"]
        _call([*install, "--disable-pip-version-check", *requirements])
        if bare:
            _call([*install, "--disable-pip-version-check", "--no-deps", *bare])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    ready.write_text(wanted, encoding="utf-8")
    return python_of(folder)


def versions(python: str | Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of ``packages`` that ``python`` finds; those it has not are left out."""
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "found['python'] = platform.python_version()\n"
        "print(json.dumps({n: found[n.lower()] for n in sys.argv[1:] if n.lower() in found}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, "python", *packages], capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _call(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InstallError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise InstallError(reason(done.stderr + "\n" + done.stdout))


def reason(output: str) -> str:
    """The line of an installer's output that says most about a failure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in _SAYS_WHY)]
    return (telling or lines or ["the installer said nothing"])[-1]
