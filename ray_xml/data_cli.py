"""``ray-xml prepare`` and ``ray-xml synth``: the commands that make data sets."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ray_xml.text_cli import add_filters, add_text_sources, filters

if TYPE_CHECKING:
    from ray_xml.store_meta import DataSetMeta

# Each asks for the field of ``synth_shapes.Shape`` of the same name.
SHAPE_OPTIONS = (
    ("documents", int, "documents of train"),
    ("test-documents", int, "documents of test"),
    ("features", int, "number of features"),
    ("labels", int, "number of labels"),
    ("labels-per-document", float, "mean"),
    ("features-per-document", float, "mean"),
)
_SYNTH_OPTIONS = (
    *SHAPE_OPTIONS,
    ("topics", int, "groups of labels that go together (default: by the number of labels)"),
    ("zipf", float, "exponent of the label frequencies (default: 1)"),
)


def add_data_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands to the command line's."""
    prepare = commands.add_parser("prepare", help="make a data-set folder from files")
    sources = prepare.add_subparsers(required=True, metavar="SOURCE")
    xc = sources.add_parser("xc", help="from XC-repository files, plain, .gz or .xz")
    xc.add_argument("train")
    xc.add_argument("test")
    xc.add_argument("out", help="the data-set folder to make, or a URL")
    xc.add_argument("--dev", help="a third split")
    for split in ("train", "test", "dev"):
        xc.add_argument(f"--{split}-labels", metavar="FILE", help="label file of the split format")
    add_filters(xc, ("train", "test", "dev"))
    xc.add_argument("--label-names", metavar="FILE", help="one name a line")
    xc.add_argument("--feature-names", metavar="FILE", help="one name a line")
    xc.add_argument("--name", help="the data set's name (default: the folder's)")
    xc.add_argument("--sort-ids", action="store_true", help="accept ids in any order")
    xc.add_argument("--overwrite", action="store_true", help="replace the data set in OUT")
    xc.set_defaults(command=_prepare_xc)
    add_text_sources(sources)
    docs = sources.add_parser(
        "docstrings", help="from the docstrings of the installed Python packages"
    )
    docs.add_argument("out", help="the data-set folder to make, or a URL")
    docs.add_argument("--seed", type=int, default=0)
    docs.add_argument("--overwrite", action="store_true", help="replace the data set in OUT")
    docs.set_defaults(command=_prepare_docstrings)

    synth = commands.add_parser(
        "synth", help="make up a data set of any size, for trying things out"
    )
    synth.add_argument("out", help="the data-set folder to make, or a URL")
    synth.add_argument(
        "--like", metavar="NAME", help="a public set's shape, by its name in configs/"
    )
    synth.add_argument("--scale", type=float, default=1.0, help="factor on the shape's counts")
    for option, kind, meaning in _SYNTH_OPTIONS:
        synth.add_argument(f"--{option}", type=kind, metavar="N", help=meaning)
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--name", help="the data set's name (default: the folder's)")
    synth.add_argument("--overwrite", action="store_true", help="replace the data set in OUT")
    synth.set_defaults(command=_synth)


def _prepare_xc(options: argparse.Namespace) -> int:
    from ray_xml.console import Counter
    from ray_xml.data_url import data_out
    from ray_xml.input_url import files_here
    from ray_xml.prepare import prepare_xc

    with (
        Counter() as counter,
        data_out(options.out, overwrite=options.overwrite) as out,
        files_here(options) as here,
    ):
        meta = prepare_xc(
            here.train,
            here.test,
            out,
            name=options.name,
            dev=here.dev,
            train_labels=here.train_labels,
            test_labels=here.test_labels,
            dev_labels=here.dev_labels,
            label_names=here.label_names,
            feature_names=here.feature_names,
            filters=filters(here, ("train", "test", "dev")),
            sort_ids=options.sort_ids,
            overwrite=options.overwrite,
            progress=counter.show,
        )
    _print_data_set(options.out, meta)
    return 0


def _print_data_set(out: str, meta: DataSetMeta) -> None:
    print(f"{out}: {meta.num_features:,} features, {meta.num_labels:,} labels")
    for name, split in meta.splits.items():
        left = split.left_out_no_features + split.left_out_no_labels
        print(
            f"  {name}: {split.documents:,} documents, {split.label_pairs:,} label pairs"
            + (f"; {left:,} without features or labels left out" if left else "")
        )


def _prepare_docstrings(options: argparse.Namespace) -> int:
    from ray_xml.data_url import data_out
    from ray_xml.docstrings import prepare_docstrings

    with data_out(options.out, overwrite=options.overwrite) as out:
        made = prepare_docstrings(
            out, seed=options.seed, overwrite=options.overwrite, progress=print
        )
    print(
        f"{options.out}: {made.train:,} training and {made.test:,} test documents, "
        f"{made.features:,} features, {made.labels:,} labels"
    )
    return 0


def _synth(options: argparse.Namespace) -> int:
    from ray_xml.console import Counter
    from ray_xml.data_url import data_out
    from ray_xml.synth import synthesise
    from ray_xml.synth_shapes import shape

    keys = [option.replace("-", "_") for option, _, _ in _SYNTH_OPTIONS]
    wanted = shape(
        like=options.like,
        scale=options.scale,
        seed=options.seed,
        asked={key: getattr(options, key) for key in keys},
    )
    with Counter() as counter, data_out(options.out, overwrite=options.overwrite) as out:
        meta = synthesise(
            out,
            wanted,
            name=options.name,
            overwrite=options.overwrite,
            progress=counter.show,
        )
    _print_data_set(options.out, meta)
    return 0
