"""A plan held against a real run: memory of all processes at one moment, and bytes sent a step."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import plan_check
import process_tree


@pytest.mark.skipif(
    not process_tree.available() or process_tree.memory_measure() != "PSS",
    reason="the kernel does not tell proportional set sizes",
)
def test_a_small_run_takes_what_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    result = plan_check.check("tiny", tmp_path)
    text = plan_check.table({"tiny": result})
    assert result.off == [], text
    measured = {what: value for what, _, value in result.rows}
    for role in plan_check.ROLES:
        assert measured[role] > 2**26, text  # every role was recognised
