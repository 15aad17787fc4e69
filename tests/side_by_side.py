"""All tests in two pytest processes: those that start Ray, which mostly wait, beside the others.

    python tests/side_by_side.py [pytest's options]

What the second process says is shown when the first has ended, so that lines do not mix. The exit
status is the worse one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WITH_RAY = ("cluster", "faults", "jobs")


def main(options: list[str]) -> int:
    folders = sorted(file.parent for file in HERE.glob("*/test_*.py"))
    with_ray = [folder for folder in dict.fromkeys(folders) if folder.name in WITH_RAY]
    others = [folder for folder in dict.fromkeys(folders) if folder.name not in WITH_RAY]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        beside = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *map(str, with_ray)],
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            first = subprocess.run([sys.executable, "-m", "pytest", *options, *map(str, others)])
            print("now those that start Ray", flush=True)
            second = beside.wait()
        finally:
            # Ends only what was started here: an interrupt reaches both, a fault of ours does not.
            if beside.poll() is None:
                beside.terminate()
                beside.wait()
            said.seek(0)
            print(said.read(), end="", flush=True)
    return max(first.returncode, second, key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
