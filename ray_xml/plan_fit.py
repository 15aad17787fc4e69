"""What to change where a plan does not fit: every change is planned again before it is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ray_xml.config import build_config
from ray_xml.plan import Nodes, Plan, plan
from ray_xml.run_config import RunConfig

_MOST_NODES = 256
_NAMED = 3  # changes that each suffice: so many are named


@dataclass(frozen=True)
class Remedy:
    """Changes that together make a plan fit.

    Attributes:
        changes: ``key=value``, and ``--nodes N`` where more nodes are wanted.
        cost: what it costs, in words.
        plan: with them; it fits.
    """

    changes: tuple[str, ...]
    cost: str
    plan: Plan


def remedies(made: Plan) -> list[Remedy]:
    """The first changes that make ``made`` fit, the cheapest first: up to three that each do it
    alone, else the shortest beginning of them that does it together. Empty if none does, or if it
    fits already."""
    if made.fits:
        return []
    steps = list(_steps(made.config))
    alone = [
        Remedy(tuple(f"{k}={v}" for k, v in change.items()), cost, tried)
        for change, cost in steps
        if (tried := _planned(made, change)).fits
    ][:_NAMED]
    found = alone or _together(made, steps)
    more = _more_nodes(made)
    return [*found, more] if more else found


def _steps(config: RunConfig) -> Iterator[tuple[dict[str, str], str]]:
    """(overrides, what they cost) that save memory, those first that cost least."""
    classifier = config.classifier
    if config.shortlist.storage == "float32":
        yield {"shortlist.storage": "float16"}, "proxies and rows are searched in half precision"
    if config.encoder.tokens == "svd":
        yield {"encoder.tokens": "random", "encoder.token_scale": "4.0"}, "a worse start"
    if classifier.storage == "float32" or classifier.optimizer == "adam":
        yield (
            {"classifier.storage": "bfloat16", "classifier.optimizer": "adam_row"},
            "4 instead of 12 bytes a weight; rows rounded at random",
        )
    if classifier.optimizer != "sgd":
        yield (
            {"classifier.storage": "bfloat16", "classifier.optimizer": "sgd"},
            "2 bytes a weight, no moments: slower progress",
        )
    if config.neighbors.size:
        yield {"neighbors.size": "0"}, "no sparse channel: rare labels suffer"
    if config.training.batch > 64:
        yield {"training.batch_size": str(config.training.batch // 2)}, "twice as many steps"
    if config.encoder.dim > 128:
        yield {"encoder.dim": str(config.encoder.dim // 2)}, "a narrower model"


def _planned(made: Plan, changes: dict[str, str], nodes: Nodes | None = None) -> Plan:
    tree = made.config.model_dump(mode="json")
    for key, value in changes.items():
        section, leaf = key.split(".")
        tree[section][leaf] = value
    config = build_config(RunConfig, tree, origin="plan")
    return plan(config, made.counts, nodes or made.nodes)


def _together(made: Plan, steps: list[tuple[dict[str, str], str]]) -> list[Remedy]:
    changes: dict[str, str] = {}
    costs = []
    for change, cost in steps:
        tried = _planned(made, {**changes, **change})
        if tried.peak >= _planned(made, changes).peak:
            continue
        changes |= change
        costs.append(cost)
        if tried.fits:
            return [Remedy(tuple(f"{k}={v}" for k, v in changes.items()), "; ".join(costs), tried)]
    return []


def _more_nodes(made: Plan) -> Remedy | None:
    """The fewest nodes, to a power of two times those there are, that hold it as it is."""
    resources, count = made.config.resources, made.nodes.count
    while (count := 2 * count) <= _MOST_NODES:
        factor = count // made.nodes.count
        workers, shards = resources.workers * factor, resources.label_shards * factor
        if workers > made.config.encoder.dim or max(workers, shards) > made.counts.labels:
            return None
        changes = {"resources.workers": str(workers), "resources.label_shards": str(shards)}
        tried = _planned(made, changes, replace(made.nodes, count=count))
        if tried.fits:
            named = (f"--nodes {count}", *(f"{k}={v}" for k, v in changes.items()))
            return Remedy(named, f"{count} such nodes", tried)
    return None
