"""What the benchmark measures of a process tree, on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import process_tree
from process_tree import ProcessTree, Stat

pytestmark = pytest.mark.skipif(not process_tree.available(), reason="there is no /proc")

MB = 1_000_000
BUSY = """
import sys, time, subprocess
held = bytearray(60_000_000)
child = sys.argv[1:] and subprocess.Popen([sys.executable, "-c", sys.argv[1]])
while time.process_time() < 0.3:
    pass
time.sleep(0.4)
if child:
    child.wait()
print("done")
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_memory_and_cpu_of_a_child_and_its_child(tmp_path: Path) -> None:
    usage = process_tree.run(python(BUSY, BUSY), env=os.environ, log=tmp_path / "log")
    assert usage.status == 0
    assert (tmp_path / "log").read_text() == "done\ndone\n"
    assert usage.processes == 2
    assert 120 * MB < usage.peak_rss < 400 * MB
    assert 120 * MB < usage.peak_pss <= usage.peak_rss
    assert 0.6 <= usage.cpu_seconds < 10
    assert usage.wall_seconds >= 0.7
    assert usage.samples > 3


def test_a_failure_keeps_its_status_and_its_words(tmp_path: Path) -> None:
    usage = process_tree.run(
        python("raise SystemExit('no luck')"), env=os.environ, log=tmp_path / "log"
    )
    assert usage.status == 1
    assert (tmp_path / "log").read_text() == "no luck\n"


def test_what_is_left_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grandchild in a session of its own, whose parent has gone."""
    monkeypatch.setattr(process_tree, "_LINGER_S", 1.0)
    code = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=1)
print(child.pid)
time.sleep(0.5)
"""
    process_tree.run(python(code), env=os.environ, log=tmp_path / "log")
    pid = int((tmp_path / "log").read_text())
    # Not whether it is there: whoever inherits the dead process may not have waited for it yet.
    assert process_tree.resident_bytes(pid) == 0


def test_an_interrupt_ends_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def interrupted(pid: int, _: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process_tree.run(
            python("import time; time.sleep(60)"), env=os.environ, log=tmp_path / "log"
        )
    assert not Path(f"/proc/{pids[0]}").exists()


def test_a_name_with_brackets_and_spaces() -> None:
    fields = ["S", "7", *["0"] * 9, "30", "12", *["0"] * 6, "99", "0"]
    stat = Stat.parse(f"41 (a) b (c)) {' '.join(fields)}")
    assert stat == Stat(pid=41, parent=7, started=99, ticks=42, dead=False)


def test_an_ended_process_has_no_memory() -> None:
    child = subprocess.Popen(python("pass"))
    child.wait()
    assert process_tree.resident_bytes(child.pid) == 0
    assert process_tree.proportional_bytes(child.pid) is None
    tree = ProcessTree(child.pid)
    tree.look()
    assert (tree.peak_rss, tree.cpu_seconds(), tree.members()) == (0, 0, [])
