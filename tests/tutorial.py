"""Runs the commands of docs/tutorial.md, all of them and as they stand, in an empty folder.

    python tests/tutorial.py

The folder has nothing but the checkout's configs/ and examples/, as the page's reader has them.
Every command must end well, and all of them within a time. `make tutorial` is this.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from documents import ROOT, SHELL, Page

PAGE = "docs/tutorial.md"
_FROM_READER = ("configs", "examples")  # folders that commands name
_MARK = "== "


def script(page: Page) -> str:
    """All code of the page as one bash script, which tells where it is."""
    parts = ["set -euo pipefail"]
    for block in page.blocks:
        if block.language in SHELL and block.language:
            code = block.text
        elif block.language == "python":
            code = f"python - <<'END OF PYTHON'\n{block.text}\nEND OF PYTHON"
        else:
            continue
        parts.append(f"echo {shlex.quote(f'{_MARK}{page.name}:{block.line}')}\n{code}")
    return "\n".join(parts) + "\n"


def run(page: Page, folder: Path, limit: float) -> int:
    """Runs the page in ``folder``; returns bash's exit status, or 124 after ``limit`` seconds."""
    for name in _FROM_READER:
        (folder / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    began = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", script(page)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # What is left when the time is over, or behind an error, such as the page's server.
    timer = _Timer(process.pid, limit)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_MARK):
            line = f"{_MARK}{time.monotonic() - began:5.1f} s  {line.removeprefix(_MARK)}"
        print(line, end="", flush=True)
    status = process.wait()
    timer.end()
    seconds = time.monotonic() - began
    if seconds > limit:
        print(f"{PAGE}: not done after {limit:.0f} s", file=sys.stderr)
        return 124
    print(f"{_MARK}{seconds:5.1f} s  {'done' if status == 0 else f'failed with {status}'}")
    return status


class _Timer:
    """Ends a process group after some seconds, and whatever is left of it at ``end``."""

    def __init__(self, group: int, limit: float) -> None:
        self._group = group
        signal.signal(signal.SIGALRM, lambda *_: self.end())
        signal.setitimer(signal.ITIMER_REAL, limit)

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            os.killpg(self._group, signal.SIGKILL)
        except ProcessLookupError:
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=float, default=180, metavar="S", help="seconds for all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        return run(Page.read(PAGE), Path(folder), options.limit)


if __name__ == "__main__":
    sys.exit(main())
