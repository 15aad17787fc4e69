"""What the benchmark says of the processes of a tree by what they are called."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import plan_check
import process_tree

pytestmark = pytest.mark.skipif(not process_tree.available(), reason="there is no /proc")

MB = 1_000_000
HOLD = "import time; held = bytearray({size}); time.sleep({seconds})"


def test_memory_by_script_and_at_the_moment_of_the_peak(tmp_path: Path) -> None:
    """Two children of one script, and one of another that has gone before they begin."""
    (tmp_path / "twin.py").write_text(HOLD.format(size=60 * MB, seconds=1.5))
    (tmp_path / "early.py").write_text(HOLD.format(size=40 * MB, seconds=0.8))
    code = f"""
import subprocess, sys
subprocess.run([sys.executable, {str(tmp_path / "early.py")!r}])
twins = [subprocess.Popen([sys.executable, {str(tmp_path / "twin.py")!r}]) for _ in range(2)]
[twin.wait() for twin in twins]
"""
    usage = process_tree.run([sys.executable, "-c", code], env=os.environ, log=tmp_path / "log")
    assert {"root", "twin.py", "early.py"} <= usage.roles.keys()
    twin, early = usage.roles["twin.py"], usage.roles["early.py"]
    assert (twin.processes, early.processes) == (2, 1)
    assert 60 * MB < twin.largest < 90 * MB
    assert 120 * MB < twin.peak == twin.at_peak < 180 * MB
    assert early.peak > 40 * MB
    assert early.at_peak == 0


def test_a_process_goes_by_the_title_that_ray_gives_it(tmp_path: Path) -> None:
    for title, role in (
        ("ray::LabelShard.search", "ray::LabelShard"),
        ("ray::RayTrainWorker", "ray::RayTrainWorker"),
        ("ray::label-shard-1:LabelShard.ping", "ray::label-shard-1:LabelShard"),
        ("/usr/bin/python3\0-u\0/x/dashboard.py\0--port=1", "dashboard.py"),
        ("/x/raylet\0--a", "raylet"),
        ("", "unknown"),
    ):
        folder = tmp_path / "7"
        folder.mkdir(exist_ok=True)
        (folder / "cmdline").write_text(title)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(process_tree, "_PROC", tmp_path)
            assert process_tree.role_of(7) == role


def test_a_process_that_is_just_ending_keeps_its_role(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    tree = process_tree.ProcessTree(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process_tree, "_PROC", tmp_path)
        for title, role in (("", "unknown"), ("/x/raylet", "raylet"), ("", "raylet")):
            (tmp_path / "7" / "cmdline").write_text(title)
            assert tree._title(7) == role


def test_a_comparison_says_what_is_off() -> None:
    counts = plan_check.Counts(600, 0, 300, 6000, np.full(80, 8))
    config = plan_check.RunConfig.model_validate(
        {"encoder": {"dim": 24, "tokens": "random"}, "resources": {"workers": 2}}
    )
    made = plan_check.plan(config, counts, plan_check.Nodes(1, 2, 2**34))
    whole, step = made.needs[0].train_together, made.traffic.step
    sent = [step if e % 2 else made.traffic.step_first for e in range(3)]

    def off(peak: float, sent: list[float]) -> list[str]:
        usage = process_tree.Usage(0, 1.0, 1.0, int(peak), int(peak), 0, 1, 1)
        return plan_check.compare(made, usage, sent).off

    assert off(whole, sent) == []
    assert off(whole / 1.19, sent) == []
    assert off(whole / 1.3, sent) == ["all at one moment"]
    assert off(whole, [sent[0], sent[1] * 1.03, sent[2]]) == ["sent a step, epoch 2"]
