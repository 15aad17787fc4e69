"""``ray-xml tune``: its options, and what it prints."""

from __future__ import annotations

import argparse
import sys


def add_tune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line's."""
    parser = commands.add_parser("tune", help="search for better settings")
    parser.add_argument("config", help="a YAML file with a tune section")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as data=DATA run=FOLDER"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the search in the folder run"
    )
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    from ray_xml.cluster.tuning import search
    from ray_xml.config import load_config
    from ray_xml.run_config import RunConfig

    config = load_config(RunConfig, options.config, options.overrides)
    try:
        told = search(config, resume=options.resume, say=_say)
    except KeyboardInterrupt:
        print("stopped; --resume goes on with the search", file=sys.stderr)
        return 130
    print(f"\n{told}\n")
    print(
        f"next: ray-xml train {config.run}/best.yaml run=RUN   (picture: {config.run}/trials.svg)"
    )
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
