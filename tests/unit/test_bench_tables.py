"""The benchmark's Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import tables
from tables import Column


def row(system: str, precision: float, **more: Any) -> dict[str, Any]:
    usage = {"wall_seconds": 10.0, "cpu_seconds": 15.5, "peak_pss": 2**30, "peak_rss": 2**31}
    return {
        "system": system,
        "settings": "defaults",
        "versions": {system: "1.0"},
        "train": usage,
        "predict": usage,
        "model_bytes": 3_000_000,
        "load_seconds": 0.5,
        "batch_ms_per_document": 1.25,
        "one_ms_p50": 2.0,
        "one_ms_p99": 4.0,
        "metrics": {"P@1": precision},
    } | more


FAILED = {"system": "b", "settings": "x", "failed": "not installed: no wheel\n| for this"}
HIGHER = Column("up", lambda one: one["metrics"].get("P@1"), 2, True)
LOWER = Column("down", lambda one: one.get("cost"), 1, False)


def test_the_best_of_a_column_is_bold() -> None:
    rows = [row("a", 50.123, cost=2.0), FAILED, row("c", 50.119, cost=1000.04), row("d", 1.0)]
    assert tables.table(rows, [HIGHER, LOWER]).splitlines() == [
        "| | up | down |",
        "|---|---:|---:|",
        "| a | **50.12** | **2.0** |",
        r"| b | not installed: no wheel \| for this |  |",
        "| c | **50.12** | 1,000.0 |",
        "| d | 1.00 | - |",
    ]


def test_nothing_is_bold_where_all_are_equal() -> None:
    assert "**" not in tables.table([row("a", 5.0), row("b", 5.0)], [HIGHER])
    assert "**" not in tables.table([row("a", 5.0)], [HIGHER])


def test_only_failures() -> None:
    assert tables.table([FAILED], [HIGHER]).splitlines()[2].startswith("| b | not installed")
    long = tables.table([FAILED | {"failed": "x" * 500}], [HIGHER]).splitlines()[2]
    assert long == f"| b | {'x' * 100} … |"


def test_the_report_says_which_way_is_better() -> None:
    results = {
        "machine": {"date": "today", "cpu": "C", "cpus": 2, "memory_gib": 4},
        "threads": 2,
        "repeats": 3,
        "singles": 500,
        "memory": "PSS",
        "data_sets": [
            {
                "name": "Bibtex", "train": 4880, "test": 2515, "features": 1836, "labels": 159,
                "rows": [row("a", 60.0, training_seconds_outside_epochs=4.0), FAILED],
            }
        ],
    }  # fmt: skip
    text = tables.report(results, ["P@1"])
    accuracy, cost = text.split("Cost, ")
    assert "**higher is better**" in accuracy
    assert "| a | 60.00 |" in accuracy
    assert "**lower is better**" in cost
    assert "| a | 10.0 | 4.0 | 15.5 | 1.00 | 3.0 | 0.50 | 1.00 | 1.250 | 2.000 | 4.000 |" in cost
    assert "* a: defaults; a 1.0" in cost
    assert r"* b: not installed: no wheel \| for this" in cost
    assert "| a | 10.0 | 4.0 | 15.5 | 2.00 |" in tables.report(results | {"memory": "RSS"}, ["P@1"])
