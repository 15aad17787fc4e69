"""``ray-xml add-labels``: labels for a model that is trained already."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ray_xml.text_cli import add_columns, columns

if TYPE_CHECKING:
    from ray_xml.label_trial import Outcome


def add_add_labels(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to the command line's."""
    parser = commands.add_parser(
        "add-labels", help="add labels to a trained model by a few examples or a name"
    )
    parser.add_argument("model", help="a run folder or an exported model, or the URL of one")
    parser.add_argument(
        "file", metavar="FILE", help="the new labels, a row an example: .csv, .jsonl or .parquet"
    )
    parser.add_argument("out", metavar="OUT", help="the folder of the exported model to make")
    add_columns(parser, required=False)
    parser.add_argument(
        "--labels",
        metavar="COLUMN",
        default="label",
        help="the new label, or a list of them (default: label)",
    )
    parser.add_argument("--label-separator", metavar="TEXT", help="cuts a text into labels")
    parser.add_argument("--data", help="what the model was trained on (default: the run's)")
    parser.add_argument("--dtype", choices=("fp16", "int8"), help="default: int8, or MODEL's")
    parser.add_argument(
        "--documents", action="store_true", help="take along the names of training documents"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn to try labels")
    parser.set_defaults(command=_add_labels)


def _add_labels(options: argparse.Namespace) -> int:
    from pathlib import Path

    from ray_xml.add_labels import add_labels
    from ray_xml.console import Counter
    from ray_xml.data_url import open_data
    from ray_xml.errors import ConfigError, DataSetError
    from ray_xml.export import export, export_dtype, is_export
    from ray_xml.label_examples import read_examples
    from ray_xml.predictor import Predictor
    from ray_xml.run_url import local_run

    out = Path(options.out)
    if out.exists():
        raise ConfigError(f"{out} exists already; choose a new folder")
    options.text = options.text or ()
    path = local_run(options.model)
    predictor = Predictor.load(path)
    model, vectorizer, names = predictor.model, predictor.vectorizer, predictor.names
    if names is None:
        raise DataSetError(f"{path}: the model's labels have no names, so new ones can have none")
    examples = read_examples(options.file, columns(options), vectorizer, names)
    data = open_data(options.data or model.config.data)
    known = vectorizer.transform(names) if examples.named.any() else None
    with Counter() as counter:
        added = add_labels(model, data, examples, known, seed=options.seed, progress=counter.show)
    dtype = options.dtype or (export_dtype(path) if is_export(path) else "int8")
    size = export(
        added.model,
        data.path,
        out,
        dtype,
        document_names=options.documents,
        labels=[*names, *examples.names],
    )
    print(
        f"{out}: {len(examples.names):,} labels added to {len(names):,} by "
        f"{len(examples.named):,} documents; model of epoch {model.epoch} as {dtype}, "
        f"{size / 1e6:,.1f} MB"
    )
    print(_told(added.outcome))
    return 0


def _told(outcome: Outcome) -> str:
    first, five = (
        (outcome.precision_at(k, "without"), outcome.precision_at(k, "with")) for k in (1, 5)
    )
    return (
        f"tried on {outcome.labels:,} of the model's own labels, taken out and added by as few "
        f"documents each,\nwhich the validation documents have {outcome.pairs:,} times:\n"
        f"  {outcome.recall:.1f} % of these are among the document's five best (R@5)\n"
        f"  {outcome.precision:.1f} % of the predictions of these labels among the five best are "
        "right\n"
        f"  of all labels: P@1 {first[0]:.2f} → {first[1]:.2f}, P@5 {five[0]:.2f} → {five[1]:.2f}\n"
        "the encoder had met these labels: new ones reached a third to nine tenths of such recall "
        "(docs/new-labels.md)"
    )
