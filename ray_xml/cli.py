"""The command line of ``ray-xml``; ``ray-xml --help`` lists the commands.

Exit status: 0 done, 1 an error that the message explains, 2 a wrong call, 130 interrupted.
Imports happen inside the commands, so that ``--help`` and wrong calls answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ray_xml import __version__
from ray_xml.data_cli import add_data_commands
from ray_xml.errors import RayXmlError
from ray_xml.plan_cli import add_plan
from ray_xml.tune_cli import add_tune

if TYPE_CHECKING:
    pass


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
        type=_positive,
        metavar="N",
        help="checkpoints to keep besides the best; short for training.keep_checkpoints=N",
    )
    train.set_defaults(command=_train)

    add_tune(commands)

    fetch = commands.add_parser("fetch", help="bring a run from its storage into a run folder")
    fetch.add_argument("storage", help="a URI, as given to resources.storage")
    fetch.add_argument("run", help="the run folder to make, or to bring up to date")
    fetch.set_defaults(command=_fetch)

    evaluate = commands.add_parser("evaluate", help="measure a run's best model on a split")
    evaluate.add_argument("run", help="a run folder")
    evaluate.add_argument("--data", help="data-set folder (default: the run's)")
    evaluate.add_argument("--split", default="test")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object, in percent")
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="labels for documents")
    predict.add_argument("run", help="a run folder")
    predict.add_argument("data", help="data-set folder or XC file")
    predict.add_argument("--split", default="test", help="of a data-set folder")
    predict.add_argument("--top-k", type=_positive, default=5)
    predict.add_argument("--out", metavar="FILE", help=".jsonl, .npz or .parquet")
    predict.set_defaults(command=_predict)

    export = commands.add_parser("export", help="a small folder for prediction alone")
    export.add_argument("run", help="a run folder")
    export.add_argument("out", help="the folder to make; evaluate and predict take it as a run")
    export.add_argument("--dtype", choices=("fp16", "int8"), default="int8")
    export.set_defaults(command=_export)

    examples = commands.add_parser("examples", help="show some documents with their predictions")
    examples.add_argument("run", help="a run folder")
    examples.add_argument("--split", default="test")
    examples.add_argument("--count", type=_positive, default=5)
    examples.add_argument("--seed", type=int, default=0)
    examples.set_defaults(command=_examples)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _train(options: argparse.Namespace) -> int:
    from ray_xml.cluster.trainer import train
    from ray_xml.config import load_config
    from ray_xml.console import describe_epoch
    from ray_xml.run_config import RunConfig

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


def _evaluate(options: argparse.Namespace) -> int:
    from ray_xml.console import Counter
    from ray_xml.evaluation import METRICS, baseline, evaluate
    from ray_xml.metrics import format_table
    from ray_xml.predictor import Predictor
    from ray_xml.store import DataSet

    predictor = Predictor.load(options.run)
    data = DataSet.open(options.data or predictor.config.data)
    with Counter() as counter:
        results = evaluate(
            predictor, data, options.split, progress=lambda d, n: counter.show("evaluate", d, n)
        )
    if options.json:
        print(json.dumps({key: round(value, 4) for key, value in results.items()}))
        return 0
    plain = baseline(data, options.split, predictor.config.dataset)
    rows = {"ray_xml": results, "most frequent labels": plain}
    documents = data.split(options.split).num_documents
    print(
        f"{options.split} split of {data.meta.name}: {documents:,} documents, "
        f"model of epoch {predictor.model.epoch}"
    )
    for kinds in (("P", "nDCG"), ("PSP", "PSnDCG"), ("R",)):
        keys = [key for key in METRICS if key.split("@")[0] in kinds]
        print("\n" + format_table(rows, keys))
    bins = [f"{kind}@5/{where}" for kind in ("P", "R") for where in ("head", "torso", "tail")]
    print("\nby label frequency\n" + format_table(rows, bins))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from contextlib import suppress
    from pathlib import Path

    from ray_xml.errors import DataSetError
    from ray_xml.export import label_names
    from ray_xml.predict_io import documents, predict_to, sink
    from ray_xml.predictor import Predictor
    from ray_xml.store import DataSet

    predictor = Predictor.load(options.run)
    names = label_names(Path(options.run))
    if names is None:
        with suppress(DataSetError):  # a model predicts without the data set it came from
            names = DataSet.open(predictor.config.data).label_names()
    with sink(options.out, names) as target:
        count = predict_to(
            predictor, documents(options.data, options.split), target, top=options.top_k
        )
    if options.out:
        print(f"{options.out}: {count:,} documents")
    return 0


def _export(options: argparse.Namespace) -> int:
    from pathlib import Path

    from ray_xml.export import export
    from ray_xml.model import model_of_run

    model = model_of_run(options.run)
    size = export(model, Path(model.config.data), Path(options.out), options.dtype)
    print(f"{options.out}: model of epoch {model.epoch} as {options.dtype}, {size / 1e6:,.1f} MB")
    return 0


def _examples(options: argparse.Namespace) -> int:
    from ray_xml.examples import examples

    for text in examples(options.run, options.split, options.count, seed=options.seed):
        print(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
