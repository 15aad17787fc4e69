"""A plan on paper."""

from __future__ import annotations

from collections.abc import Sequence

from ray_xml.plan import USABLE, Plan, gib
from ray_xml.plan_fit import Remedy
from ray_xml.plan_parts import RUN, Process

_WIDTH = 40


def describe(made: Plan, changes: Sequence[Remedy] = ()) -> str:
    """The plan as text: data, processes part by part, nodes, traffic, verdict, what to change."""
    lines = [*_data(made), ""]
    shown: set[str] = set()
    for one in made.processes:
        lines += _process(one, shown)
    lines += ["", *_nodes(made), "", *_traffic(made), "", *_verdict(made, changes)]
    return "\n".join(lines)


def _data(made: Plan) -> list[str]:
    counts, config = made.counts, made.config
    active = int((counts.label_counts > 0).sum())
    lines = [
        f"{counts.documents:,} documents, {counts.features:,} features, {counts.labels:,} labels "
        f"({active:,} with documents), {counts.pairs:,} label pairs",
        f"{config.resources.workers} workers, {config.resources.label_shards} label shards, "
        f"D = {config.encoder.dim}, batch {config.training.batch}, rows "
        f"{config.classifier.storage} with {config.classifier.optimizer}, "
        f"{made.candidates:,} candidates a batch",
    ]
    if counts.assumed:
        lines.append("assumed: " + "; ".join(counts.assumed))
    return lines


def _process(one: Process, shown: set[str]) -> list[str]:
    """All parts of the first of its kind; of the others the sum."""
    lines = [
        f"{one.role}, node {one.node}: {gib(one.peak)} at most ({one.peak_phase})"
        + (f", {gib(one.most('gpu'))} on the GPU" if one.most("gpu") else "")
    ]
    kind = one.role.rstrip("0123456789")
    if kind in shown:
        return lines
    shown.add(kind)
    for part in one.parts:
        always = set(RUN[3:]) <= set(part.phases) or part.phases == ("evaluate",)
        when = (
            ""
            if always
            else ", ".join(part.phases)
            if len(part.phases) < 3
            else f"from {part.phases[0]}"
        )
        where = {
            "memory": "",
            "cache": "file in the page cache",
            "store": "object store",
            "gpu": "GPU",
        }
        notes = "; ".join(note for note in (where[part.kind], when) if note)
        lines.append(f"    {part.name:<{_WIDTH}} {gib(part.nbytes):>10}  {notes}".rstrip())
    return lines


def _nodes(made: Plan) -> list[str]:
    return [
        f"node {need.number}: {gib(need.peak)} at most ({need.phase}) of "
        f"{gib(USABLE * made.nodes.memory)} that may be used, and {gib(need.cache)} of files"
        for need in made.needs
    ]


def _traffic(made: Plan) -> list[str]:
    sent, training = made.traffic, made.config.training
    lines = [
        f"{training.total} epochs of {sent.steps:,} steps, {sent.refreshes} refreshes; "
        f"a worker sends {sent.step:,.0f} bytes a step"
        + (
            f" ({sent.step_first:,.0f} in a cycle's first epoch)"
            if sent.step_first > sent.step
            else ""
        ),
        "a refresh sends, all workers and label shards together:",
    ]
    return lines + [
        f"    {name:<{_WIDTH}} {gib(size):>10}" for name, size in sent.cycle.items() if size
    ]


def _verdict(made: Plan, changes: Sequence[Remedy]) -> list[str]:
    if made.fits:
        return ["fits", *(f"but {one}" for one in made.warnings)]
    lines = ["does not fit", *(f"  {one}" for one in made.problems)]
    for one in changes:
        lines.append(f"would fit with {' '.join(one.changes)}")
        lines.append(f"    {one.cost}; then {gib(one.plan.peak)} at most on a node")
    if not changes:
        lines.append("no change that is known here makes it fit")
    return lines
