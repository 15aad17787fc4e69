"""``ray-xml plan``: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from ray_xml.data_cli import SHAPE_OPTIONS

if TYPE_CHECKING:
    from ray_xml.plan import Nodes, Plan

_NODE_OPTIONS = (
    ("nodes", int, "N", "how many, all alike (default: 1)"),
    ("cpus", int, "C", "CPUs of a node (default: this machine's)"),
    ("memory", float, "GIB", "memory of a node (default: this machine's)"),
    ("gpus", int, "G", "GPUs of a node"),
    ("gpu-memory", float, "GIB", "memory of a GPU"),
)


def add_plan(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line's."""
    parser = commands.add_parser(
        "plan",
        help="what a run will need: memory, traffic, whether it fits",
        epilog="Exit status: 0 fits, 3 does not fit, 1 an error, 2 a wrong call.",
    )
    parser.add_argument("config", help="a YAML file, such as configs/default.yaml")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as data=DATA resources.workers=8"
    )
    parser.add_argument(
        "--like", metavar="NAME", help="plan for a public set's shape, by its name in configs/"
    )
    for option, kind, meaning in SHAPE_OPTIONS:
        parser.add_argument(f"--{option}", type=kind, metavar="N", help=meaning)
    for option, kind, unit, meaning in _NODE_OPTIONS:
        parser.add_argument(f"--{option}", type=kind, metavar=unit, help=meaning)
    parser.add_argument(
        "--probe", action="store_true", help="measure this machine's speed to say how long it takes"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    from ray_xml.config import load_config
    from ray_xml.plan import plan
    from ray_xml.plan_counts import planned_counts
    from ray_xml.plan_fit import remedies
    from ray_xml.plan_probe import describe_seconds, probe
    from ray_xml.plan_text import describe
    from ray_xml.run_config import RunConfig

    config = load_config(RunConfig, options.config, options.overrides)
    keys = [option.replace("-", "_") for option, _, _ in SHAPE_OPTIONS]
    counts = planned_counts(config, options.like, {key: getattr(options, key) for key in keys})
    made = plan(config, counts, _nodes(options))
    changes = remedies(made)
    seconds = probe(made) if options.probe else None
    if options.json:
        tree = made.as_dict()
        tree["remedies"] = [
            {"changes": list(one.changes), "cost": one.cost, "peak_bytes": one.plan.peak}
            for one in changes
        ]
        if seconds is not None:
            tree["seconds"] = seconds.as_dict()
        print(json.dumps(tree))
    else:
        print(describe(made, changes))
        if seconds is not None:
            print("\n" + describe_seconds(seconds))
    return _status(made)


def _status(made: Plan) -> int:
    return 0 if made.fits else 3


def _nodes(options: argparse.Namespace) -> Nodes:
    from ray_xml.errors import ConfigError
    from ray_xml.plan import Nodes

    for name, _, _, _ in _NODE_OPTIONS:
        value = getattr(options, name.replace("-", "_"))
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} is {value:g}; it must be above 0")
    nodes = Nodes.here()
    gpus = options.gpus or 0
    return replace(
        nodes,
        count=options.nodes or 1,
        cpus=options.cpus or nodes.cpus,
        memory=nodes.memory if options.memory is None else int(options.memory * 2**30),
        gpus=gpus,
        gpu_memory=int((options.gpu_memory or 0) * 2**30),
    )
