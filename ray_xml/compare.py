"""Runs held against the first of them: differences of metrics with their errors, and of configs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray_xml.document_scores import SURE, Difference, differences
from ray_xml.report_data import Gathered, Measured
from ray_xml.run_identity import flat

_KEYS = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "PSP@3", "PSP@5", "R@5")


def against(first: Measured, other: Measured) -> dict[str, Difference]:
    """``other``'s metrics minus ``first``'s, both measured on the same split."""
    return differences(first.tally.documents, other.tally.documents)


def measured(runs: Sequence[Gathered]) -> list[tuple[Gathered, Measured]]:
    """Those that could be measured."""
    return [(one, one.measured) for one in runs if one.measured is not None]


def comparison_table(runs: Sequence[Gathered]) -> str:
    """The metrics as text; differences to the first run in a line of their own, with ± the 95 %
    interval and a * where 0 is outside of it."""
    found = measured(runs)
    if not found:
        return "nothing was measured"
    first = found[0][1]
    lines = [["", *_KEYS]]
    for place, (run, own) in enumerate(found):
        lines.append([run.source, *(f"{own.tally.metrics[key]:.2f}" for key in _KEYS)])
        if place:
            apart = against(first, own)
            lines.append(["  difference", *(_cell(apart[key]) for key in _KEYS)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(_KEYS) + 1)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    if len(found) > 1:
        text.append(f"± 95 % interval over {first.documents:,} documents; * 0 lies outside of it")
    return "\n".join(text)


def _cell(one: Difference) -> str:
    return f"{one.value:+.2f}±{SURE * one.error:.2f}{'*' if one.sure else ' '}"


def config_differences(runs: Sequence[Gathered]) -> list[tuple[str, list[Any]]]:
    """(key, the value of each run) of the keys that are not the same in all; not the folders'."""
    trees = [flat(run.config.model_dump(mode="json", exclude={"run"})) for run in runs]
    keys = sorted({key for tree in trees for key in tree})
    rows = [(key, [tree.get(key) for tree in trees]) for key in keys]
    return [(key, values) for key, values in rows if any(v != values[0] for v in values)]
