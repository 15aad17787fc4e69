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
import threading
import time
from contextlib import suppress
from pathlib import Path

from documents import ROOT, Page

PAGE = "docs/tutorial.md"
_FROM_READER = ("configs", "examples")  # folders that commands name
_MARK = "== "


def script(page: Page) -> str:
    """All code of the page as one bash script, which tells where it is."""
    # What runs beside, such as the page's server, must not outlive an error.
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    for block in page.blocks:
        if block.language == "sh":
            code = block.text
        elif block.language == "python":
            code = f"python - <<'END OF PYTHON'\n{block.text}\nEND OF PYTHON"
        else:
            continue
        mark = shlex.quote(f"{_MARK}{page.name}:{block.line}")
        parts.append(f"echo; echo {mark}\n{code}")
    return "\n".join(parts) + "\n"


def run(page: Page, folder: Path, limit: float) -> int:
    """Runs the page in ``folder``; returns bash's exit status, or 124 after ``limit`` seconds.

    Nothing of it goes on afterwards.
    """
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
    timer = threading.Timer(limit, _end, [process.pid])
    timer.start()
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_MARK):
                line = f"{_MARK}{time.monotonic() - began:5.1f} s  {line.removeprefix(_MARK)}"
            print(line, end="", flush=True)
    timer.cancel()
    _end(process.pid)
    seconds = time.monotonic() - began
    if seconds > limit:
        print(f"{page.name}: not done after {limit:g} s", file=sys.stderr)
        return 124
    status = process.returncode
    print(f"{_MARK}{seconds:5.1f} s  {f'failed with {status}' if status else 'done'}")
    return status


def _end(group: int) -> None:
    """Ends what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=float, default=180, metavar="S", help="seconds for all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tutorial-") as folder:
        return run(Page.read(PAGE), Path(folder), options.limit)


if __name__ == "__main__":
    sys.exit(main())
