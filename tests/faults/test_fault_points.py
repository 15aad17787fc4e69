"""The points at which processes wait, without a run: where they are, and who waits for what."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import points
import pytest
from fault_runs import PHASES, cells_of, epochs_for
from processes import wait_for

HERE = Path(__file__).parent


def python(text: str, folder: Path) -> subprocess.Popen[str]:
    """A process that may wait at the points of the plan in ``folder``."""
    return subprocess.Popen(
        [sys.executable, "-c", text],
        env={
            **os.environ,
            points.FOLDER: str(folder),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def test_every_point_is_in_the_product(tmp_path: Path) -> None:
    """A function that was renamed would never be paused at."""
    modules = ", ".join(points.POINTS)
    text = f"import points; points.install(); import {modules}; print('found')"
    assert python(text, tmp_path).communicate(timeout=120) == ("found\n", None)


@pytest.mark.parametrize("name", PHASES)
def test_every_phase_has_a_point(name: str) -> None:
    assert f'pause("{name}", ' in (HERE / "points.py").read_text()


def test_the_first_to_come_waits_until_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps([["encode", 2]]))
    text = "import points; points.pause('search', 2); points.pause('encode', 4); print('there')"
    assert python(text, tmp_path).communicate(timeout=60)[0] == "there\n"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    text = "import points; points.pause('encode', 2); print('gone on')"
    waiting = python(text, tmp_path)
    try:
        marker = tmp_path / "encode-2.pid"
        assert wait_for(marker.exists)
        assert marker.read_text() == str(waiting.pid)
        assert python(text, tmp_path).communicate(timeout=60)[0] == "gone on\n"
        assert waiting.poll() is None
        marker.with_suffix(".go").touch()
        assert waiting.communicate(timeout=60)[0] == "gone on\n"
    finally:
        waiting.kill()
        waiting.communicate()


def test_cells_come_in_the_order_of_a_run() -> None:
    cells = cells_of("worker")
    numbers = [cell.number for cell in cells]
    assert numbers == sorted(numbers)
    assert [cell.phase for cell in cells] == list(PHASES)
    # Each kill's epoch is stored before the next kill, and a cycle comes after the last.
    for before, after in itertools.pairwise(cells):
        assert before.stored_next <= after.number
    assert epochs_for(cells) >= cells[-1].stored_next + 1
