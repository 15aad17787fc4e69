"""Runs side by side as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import yaml

from ray_xml.charts import STYLES
from ray_xml.compare import against, config_differences, measured
from ray_xml.document_scores import SURE, Difference
from ray_xml.label_table import frequency_table
from ray_xml.report_curves import epoch_series, loss_series, over_epochs
from ray_xml.report_data import Gathered, Measured
from ray_xml.report_environment import command, machine, now, versions
from ray_xml.report_html import (
    charts,
    facts,
    figure,
    name,
    notes,
    page,
    paragraph,
    section,
    table,
    words,
)
from ray_xml.report_labels import recall_bars
from ray_xml.report_scores import CUTS, KINDS
from ray_xml.run_text import duration
from ray_xml.svg import shortened

_CURVES = (
    ("validation/P@1", "Validation P@1"),
    ("validation/nDCG@5", "Validation nDCG@5"),
    ("validation/PSP@5", "Validation PSP@5"),
    ("candidate_recall", "Recall of candidates"),
)


def compare_page(runs: Sequence[Gathered], arguments: Sequence[str]) -> str:
    """The file's text.

    Args:
        runs: the first is what the others are held against.
        arguments: of the command line that asked for it.
    """
    names = short_names([run.source for run in runs])
    found = measured(runs)
    own = {id(run): label for run, label in zip(runs, names, strict=True)}
    title = f"{len(runs)} runs on {found[0][1].data.meta.name}" if found else f"{len(runs)} runs"
    said = [
        f"{label}: {note}" for run, label in zip(runs, names, strict=True) for note in run.notes
    ]
    labelled = [(own[id(run)], one) for run, one in found]
    body = [
        f"<h1>{words(title)}</h1>",
        facts(
            [
                ("documents", _documents(found)),
                ("comparison", command(arguments)),
                ("made", f"{now()} with {versions()}"),
                ("on", machine()),
            ]
        ),
        notes(said),
    ]
    if labelled:
        body.append(section("Metrics", _metrics(labelled)))
    body.append(section("Labels by frequency", _frequencies(labelled)))
    body.append(section("Training", _curves(runs, names)))
    body.append(section("Time, memory, size", _costs(runs, names)))
    body.append(section("What the configs differ in", _configs(runs, names)))
    body.append(f"<footer>{words(versions())}, {words(now())}</footer>")
    return page(f"{title} · ray_xml comparison", body)


def short_names(sources: Sequence[str]) -> list[str]:
    """The ends of the paths, as long as it takes to tell them apart; numbered if nothing does."""
    parts = [PurePath(one).parts for one in sources]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{one} ({number})" for number, one in enumerate(sources, 1)]


def _documents(found: Sequence[tuple[Gathered, Measured]]) -> str:
    if not found:
        return ""
    one = found[0][1]
    return f"{one.documents:,} of {one.split}"


def _metrics(found: Sequence[tuple[str, Measured]]) -> str:
    first = found[0][1]
    keys = [f"{kind}@{k}" for kind in KINDS for k in CUTS]
    head, rows = [""], [[words(key)] for key in keys]
    for label, one in found:
        head.append(label)
        for key, row in zip(keys, rows, strict=True):
            row.append(f"{one.tally.metrics[key]:.2f}")
        if one is not first:
            head.append("difference")
            apart = against(first, one)
            for key, row in zip(keys, rows, strict=True):
                row.append(_difference(apart[key]))
    told = (
        f"In percent. Differences are to {found[0][0]}, in points, with ± the 95 % interval over "
        f"the draw of the {first.documents:,} documents, both runs asked about the same ones. "
        "*: 0 lies outside of it. It says nothing of other seeds, and of many numbers some have "
        "their * by chance."
    )
    return table(head, rows) + paragraph(told)


def _difference(one: Difference) -> str:
    look = ("good" if one.value > 0 else "bad") if one.sure else "dim"
    return (
        f'<span class="{look}">{one.value:+.2f}{"*" * one.sure}</span> '
        f'<span class="dim">±{SURE * one.error:.2f}</span>'
    )


def _frequencies(found: Sequence[tuple[str, Measured]]) -> str:
    if not found:
        return ""
    tables = [frequency_table(one.tally, one.counts) for _, one in found]
    bars = [
        (label, [b.recall for b in bins]) for (label, _), bins in zip(found, tables, strict=True)
    ]
    chart = recall_bars(tables[0], bars[:STYLES], found[0][1].tally.top)
    return charts(figure("Recall by label frequency", chart))


def _curves(runs: Sequence[Gathered], names: Sequence[str]) -> str:
    lines = sorted((line for run in runs for line in run.lines), key=lambda line: line["epoch"])
    if not lines:
        return ""
    styles = [place % STYLES + 1 for place in range(len(runs))]
    every = list(zip(runs, names, styles, strict=True))
    shown = []
    losses = [loss_series(label, run.lines, run.losses, style) for run, label, style in every]
    filled = [one for one in losses if one.points]
    if filled:
        chart = over_epochs("loss", filled, lines, "loss", start=0.0)
        shown.append(figure("Loss, smoothed", chart))
    for key, title in _CURVES:
        series = [epoch_series(label, run.lines, key, style) for run, label, style in every]
        filled = [one for one in series if one.points]
        if filled:
            shown.append(figure(title, over_epochs(title, filled, lines, "percent")))
    return charts(*shown)


def _costs(runs: Sequence[Gathered], names: Sequence[str]) -> str:
    head = ["", "epochs", "training", "an epoch", "docs/s", "peak memory", "model"]
    rows = []
    for run, label in zip(runs, names, strict=True):
        seconds = [sum((line.get("seconds") or {}).values()) for line in run.lines]
        rates = [line["docs_per_second"] for line in run.lines if "docs_per_second" in line]
        memory = [line["memory_gib"] for line in run.lines if "memory_gib" in line]
        rows.append(
            [
                name(label),
                f"{len(run.lines)}" if run.status else "–",
                duration(sum(seconds)) if seconds else "–",
                duration(sum(seconds) / len(seconds)) if seconds else "–",
                f"{sum(rates) / len(rates):,.0f}" if rates else "–",
                f"{max(memory):.2f} GiB" if memory else "–",
                f"{run.size / 1e6:,.1f} MB" if run.size else "–",
            ]
        )
    told = (
        "Training: all phases of all epochs, starting included. Model: the checkpoint or exported "
        "folder that was measured."
    )
    return table(head, rows) + paragraph(told)


def _configs(runs: Sequence[Gathered], names: Sequence[str]) -> str:
    found = config_differences(runs)
    if not found:
        return paragraph("nothing")
    rows = [[words(key), *(words(_yaml(value)) for value in values)] for key, values in found]
    return table(["key", *names], rows, left=len(runs) + 1)


def _yaml(value: object) -> str:
    return shortened(str(yaml.safe_dump(value, default_flow_style=True)).splitlines()[0], 120)
