"""The command line of ``ray-xml``; ``ray-xml --help`` lists the commands.

Exit status: 0 done, 1 an error that the message explains, 2 a wrong call, 130 interrupted.
Imports happen inside the commands, so that ``--help`` and wrong calls answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ray_xml import __version__
from ray_xml.data_cli import add_data_commands
from ray_xml.errors import RayXmlError
from ray_xml.labels_cli import add_add_labels
from ray_xml.plan_cli import add_plan
from ray_xml.report_cli import add_report
from ray_xml.serve_cli import add_serve
from ray_xml.status_cli import add_status
from ray_xml.tune_cli import add_tune
from ray_xml.use_cli import add_use_commands, positive


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    options = _options(arguments)
    try:
        status: int = options.command(options)
        return status
    except RayXmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes no positional arguments behind an option once it has had some; a key=value
    may stand anywhere."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    wrong = [one for one in rest if one.startswith("-") or "=" not in one]
    if rest and (wrong or not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(wrong or rest)}")
    if rest:
        options.overrides += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ray-xml", description=__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=f"ray-xml {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_data_commands(commands)
    add_plan(commands)

    train = commands.add_parser("train", help="train, or go on with a run")
    train.add_argument("config", help="a YAML file, such as configs/default.yaml")
    train.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as data=DATA run=RUN"
    )
    train.add_argument(
        "--keep",
        type=positive,
        metavar="N",
        help="checkpoints to keep besides the best; short for training.keep_checkpoints=N",
    )
    train.set_defaults(command=_train)

    add_tune(commands)

    fetch = commands.add_parser("fetch", help="bring a run from its storage into a run folder")
    fetch.add_argument("storage", help="a URI, as given to resources.storage")
    fetch.add_argument("run", help="the run folder to make, or to bring up to date")
    fetch.set_defaults(command=_fetch)

    add_status(commands)
    add_use_commands(commands)
    add_serve(commands)
    add_add_labels(commands)
    add_report(commands)

    examples = commands.add_parser("examples", help="show some documents with their predictions")
    examples.add_argument("run", help="a run folder")
    examples.add_argument("--split", default="test")
    examples.add_argument("--count", type=positive, default=5)
    examples.add_argument("--seed", type=int, default=0)
    examples.set_defaults(command=_examples)
    return parser


def _train(options: argparse.Namespace) -> int:
    from ray_xml.cluster.trainer import train
    from ray_xml.config import load_config
    from ray_xml.run_config import RunConfig
    from ray_xml.run_text import describe_epoch

    kept = [] if options.keep is None else [f"training.keep_checkpoints={options.keep}"]
    config = load_config(RunConfig, options.config, [*options.overrides, *kept])
    try:
        outcome = train(config)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last whole epoch", file=sys.stderr)
        return 130
    if not outcome.trained:
        print(f"{outcome.folder}: all {outcome.epochs} epochs are done already")
    best = next((line["best"] for line in reversed(outcome.lines) if "best" in line), None)
    if best and best["epoch"]:
        chosen = next(line for line in outcome.lines if line["epoch"] == best["epoch"])
        print(f"best by {best['metric']} on validation:\n{describe_epoch(chosen)}")
    print(f"next: ray-xml evaluate {config.run}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from ray_xml.run_folder import RunFolder
    from ray_xml.run_storage import RunStorage

    folder = RunFolder(options.run)
    epochs = RunStorage(options.storage).fetch(folder)
    print(f"{folder.path}: a run of {epochs} epochs")
    return 0


def _examples(options: argparse.Namespace) -> int:
    from ray_xml.examples import examples

    for text in examples(options.run, options.split, options.count, seed=options.seed):
        print(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
