"""Fuzzes the readers: ``python tests/fuzz/run.py --seconds N [TARGET ...]``.

Each target gets its share of the seconds in a process of its own, in which atheris (libFuzzer)
goes after new branches of ray_xml. Half of the inputs come from its own mutations of bytes, half
from ``mutations``, which know the formats. Findings (see ``fuzz_watch``) do not end a target: they
are kept, one file for each place in the code, and a process that dies is started again.

Writes ``summary.json`` into ``--work``: seconds, inputs, branches and findings of each target.
Exit status 1 if there are findings.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
_RESTARTS = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--work", type=Path, default=Path("fuzz-work"), help="corpus and findings")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        from fuzz_child import fuzz

        fuzz(options.targets[0], options.seconds, options.work)
        return 0
    from fuzz_seeds import NAMES_OF_TARGETS
    from tiny import make_artefacts

    work = options.work.resolve()
    make_artefacts(work / "artefacts")
    targets = options.targets or list(NAMES_OF_TARGETS)
    summary = {one: _campaign(one, options.seconds / len(targets), work) for one in targets}
    (work / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    found = sum(len(one["findings"]) for one in summary.values())
    total = sum(one["inputs"] for one in summary.values())
    print(f"{total:,} inputs, {found} findings; see {work / 'summary.json'}")
    return 1 if found else 0


def _campaign(target: str, seconds: float, work: Path) -> dict[str, Any]:
    """Fuzzes one target until its time is up; returns its line of the summary."""
    begun, fuzzed, inputs, branches = time.monotonic(), 0.0, 0, 0
    folder = work / target
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    from fuzz_watch import DONE

    for _ in range(_RESTARTS):
        left = seconds - (time.monotonic() - begun)
        if left < 2:
            break
        with log.open("wb") as out:
            command = [sys.executable, __file__, "--child", target]
            command += ["--seconds", str(int(left)), "--work", str(work)]
            status = subprocess.run(command, stdout=out, stderr=out).returncode
        text = log.read_text(encoding="utf-8", errors="replace")
        if (folder / DONE).exists():
            done = json.loads((folder / DONE).read_text())
            inputs, fuzzed = inputs + done["inputs"], fuzzed + done["seconds"]
            (folder / DONE).unlink()
        branches = max([int(n) for n in re.findall(r"cov: (\d+)", text)], default=branches)
        if status:
            _keep_death(folder, status, text)
    line = {
        "seconds": round(fuzzed, 1),
        "inputs": inputs,
        "branches": branches,
        "findings": sorted(path.name for path in folder.glob("finding-*.json")),
    }
    print(f"{target}: {line}", flush=True)
    return line


def _keep_death(folder: Path, status: int, log: str) -> None:
    """A process that died is a finding, too: a signal, no memory, or no end."""
    last = sorted(folder.glob("died-*"), key=lambda path: path.stat().st_mtime)[-1:]
    frames = re.findall(r"File \"([^\"]+)\", line (\d+)", log)
    record = {
        "kind": f"died with status {status}",
        "input": last[0].name if last else None,
        "frames": frames[-8:],
        "log": log[-4000:],
    }
    name = f"finding-death-{last[0].name if last else int(time.time())}.json"
    (folder / name).write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
