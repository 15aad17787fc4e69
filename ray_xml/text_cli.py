"""``ray-xml prepare text`` and ``prepare lf``: data sets from texts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray_xml.prepare_text import Prepared
    from ray_xml.row_files import Columns
    from ray_xml.text import TextSettings


def add_text_sources(sources: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the sources to ``prepare``'s."""
    text = sources.add_parser(
        "text", help="from CSV, JSON-lines or Parquet files of texts and labels"
    )
    text.add_argument("files", nargs="+", metavar="FILE", help="of the train split")
    text.add_argument("out", metavar="OUT", help="the data-set folder to make, or a URL")
    add_columns(text, required=True)
    text.add_argument("--labels", metavar="COLUMN", required=True, help="a list, or a text to cut")
    text.add_argument("--label-separator", metavar="TEXT", help="cuts a text into labels")
    text.add_argument("--id", metavar="COLUMN", help="names of the documents, kept beside the rows")
    text.add_argument(
        "--test",
        action="append",
        metavar="FILE|SHARE",
        help="files of the test split, or the share of the documents to draw (default: 0.1)",
    )
    text.add_argument("--dev", action="append", default=[], metavar="FILE", help="of a third split")
    _add_embeddings(text, ("train", "test", "dev"))
    text.add_argument("--seed", type=int, default=0, help="another one draws another test split")
    text.add_argument("--allow-empty", action="store_true", help="let rows be without text")
    texts = text.add_argument_group("texts of the labels themselves, to train on besides")
    texts.add_argument(
        "--label-text", action="append", default=[], metavar="FILE", help="a row a label"
    )
    texts.add_argument(
        "--label-text-columns",
        metavar="COLUMNS",
        default=("text",),
        type=lambda text: tuple(text.split(",")),
        help="of its texts (default: text)",
    )
    texts.add_argument(
        "--label-text-label", metavar="COLUMN", default="label", help="of its labels"
    )
    _add_common(text)
    text.set_defaults(command=_prepare_text)

    lf = sources.add_parser("lf", help="from the XC repository's raw JSON, where labels have texts")
    for name in ("train", "test", "labels"):
        lf.add_argument(name, metavar=name.upper(), help="JSON lines, plain, .gz or .xz")
    lf.add_argument("out", metavar="OUT", help="the data-set folder to make, or a URL")
    add_filters(lf, ("train", "test"))
    _add_embeddings(lf, ("train", "test"))
    _add_common(lf)
    lf.set_defaults(command=_prepare_lf)


def add_filters(parser: argparse.ArgumentParser, splits: tuple[str, ...]) -> None:
    """Adds the options that name files of pairs to be left out of evaluation."""
    for split in splits:
        parser.add_argument(
            f"--filter-{split}",
            metavar="FILE",
            help="pairs to leave out of evaluation, 'document label' a line, counted from 0",
        )


def filters(options: argparse.Namespace, splits: tuple[str, ...]) -> dict[str, str]:
    """What ``add_filters`` asked for, by split."""
    named = {split: getattr(options, f"filter_{split}") for split in splits}
    return {split: path for split, path in named.items() if path is not None}


def _add_embeddings(parser: argparse.ArgumentParser, splits: tuple[str, ...]) -> None:
    for split in splits:
        parser.add_argument(
            f"--{_before(split)}embeddings",
            metavar="FILE.npy",
            help=f"vectors of {split}'s documents, a row each, as further features",
        )
    parser.add_argument(
        "--embedding-weight",
        type=float,
        default=1.0,
        metavar="W",
        help="length of the vectors; that of a document's words is 1 (default: 1)",
    )
    parser.add_argument("--no-words", action="store_true", help="let vectors be the only features")


def _before(split: str) -> str:
    return "" if split == "train" else f"{split}-"


def _embeddings(options: argparse.Namespace, splits: tuple[str, ...]) -> dict[str, Any]:
    """What ``_add_embeddings`` asked for, as ``prepare_text`` takes it."""
    named = {
        split: getattr(options, f"{_before(split)}embeddings".replace("-", "_")) for split in splits
    }
    return {
        "embeddings": {split: path for split, path in named.items() if path is not None},
        "embedding_weight": options.embedding_weight,
        "words": not options.no_words,
    }


def add_columns(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds the options that say where a file's texts are."""
    parser.add_argument(
        "--text",
        metavar="COLUMNS",
        required=required,
        type=lambda text: tuple(text.split(",")),
        help="columns of the text, such as title,body; of a .txt file, text",
    )
    parser.add_argument(
        "--delimiter", metavar="CHARACTER", help="between the columns of a CSV file"
    )
    parser.add_argument(
        "--embedding-column",
        metavar="COLUMN",
        help="of JSON lines or Parquet: the documents' vectors, lists of numbers",
    )


def columns(options: argparse.Namespace) -> Columns:
    """What ``add_columns`` asked for; where they are options too, labels and ids."""
    from ray_xml.row_files import Columns

    return Columns(
        text=options.text,
        labels=getattr(options, "labels", None),
        separator=getattr(options, "label_separator", None) or None,
        id=getattr(options, "id", None),
        delimiter=options.delimiter,
        embedding=options.embedding_column,
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("from texts to features")
    group.add_argument(
        "--ngrams", type=_runs, default=(1, 1), metavar="N-M", help="runs of words (default: 1-1)"
    )
    group.add_argument(
        "--char-ngrams", type=_runs, metavar="N-M", help="also runs of a word's characters"
    )
    group.add_argument(
        "--min-documents",
        type=int,
        default=2,
        metavar="N",
        help="drop terms of fewer train documents (default: 2)",
    )
    group.add_argument("--max-features", type=int, metavar="N", help="keep the most frequent terms")
    group.add_argument(
        "--hash", type=_power, metavar="N", help="hash terms to N features, such as 2^20"
    )
    group.add_argument(
        "--min-length", type=int, default=2, metavar="N", help="drop shorter words (default: 2)"
    )
    group.add_argument(
        "--identifiers", action="store_true", help="cut snake_case and camelCase, as for code"
    )
    group.add_argument(
        "--raw-counts", action="store_true", help="weigh a count c as c, not as 1 + ln c"
    )
    parser.add_argument(
        "--label-names-as-text",
        action="store_true",
        help="train on every label's name, too, as a document of its",
    )
    parser.add_argument("--name", help="the data set's name (default: the folder's)")
    parser.add_argument("--processes", type=int, metavar="N", help="default: one a CPU")
    parser.add_argument("--overwrite", action="store_true", help="replace the data set in OUT")


def _runs(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _power(text: str) -> int:
    base, _, exponent = text.replace("**", "^").partition("^")
    if exponent and not 0 <= int(exponent) < 32:
        raise argparse.ArgumentTypeError(f"{text} is no number of features")
    number: int = int(base) ** int(exponent or 1)
    return number


def _settings(options: argparse.Namespace) -> TextSettings:
    from pydantic import ValidationError

    from ray_xml.errors import ConfigError
    from ray_xml.text import TextSettings

    try:
        return TextSettings(
            cut="identifiers" if options.identifiers else "words",
            ngrams=options.ngrams,
            char_ngrams=options.char_ngrams,
            min_df=options.min_documents,
            max_features=options.max_features,
            hash=options.hash,
            min_length=options.min_length,
            sublinear_tf=not options.raw_counts,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the options for features: {place or 'together'}: {first['msg']}") from (
            error
        )


def _prepare_text(options: argparse.Namespace) -> int:
    from ray_xml.label_texts import LabelTexts
    from ray_xml.prepare_text import prepare_text
    from ray_xml.row_files import Columns

    def run(here: argparse.Namespace, out: str, **common: Any) -> Prepared:
        own = Columns(here.label_text_columns, here.label_text_label, delimiter=here.delimiter)
        texts = LabelTexts(here.label_text, own, here.label_names_as_text)
        return prepare_text(
            here.files,
            out,
            test=_test(here.test or ["0.1"]),
            dev=here.dev,
            columns=columns(options),
            **_embeddings(here, ("train", "test", "dev")),
            label_texts=texts,
            seed=options.seed,
            allow_empty=options.allow_empty,
            **common,
        )

    return _prepare(options, run)


def _test(given: list[str]) -> list[str] | float:
    try:
        return float(given[0]) if len(given) == 1 else given
    except ValueError:
        return given


def _prepare_lf(options: argparse.Namespace) -> int:
    from ray_xml.label_texts import LabelTexts
    from ray_xml.prepare_lf import prepare_lf

    def run(here: argparse.Namespace, out: str, **common: Any) -> Prepared:
        splits = ("train", "test")
        more = {"filters": filters(here, splits), **_embeddings(here, splits)}
        texts = LabelTexts(names=here.label_names_as_text)
        return prepare_lf(
            here.train, here.test, here.labels, out, label_texts=texts, **more, **common
        )

    return _prepare(options, run)


def _prepare(options: argparse.Namespace, run: Any) -> int:
    from ray_xml.console import Counter
    from ray_xml.data_summary import told
    from ray_xml.data_url import data_out
    from ray_xml.errors import ConfigError
    from ray_xml.input_url import files_here

    if options.processes is not None and options.processes < 1:
        raise ConfigError(f"--processes {options.processes}: at least 1 must read")
    settings = _settings(options)
    with (
        Counter() as counter,
        data_out(options.out, overwrite=options.overwrite) as out,
        files_here(options) as here,
    ):
        made = run(
            here,
            out,
            settings=settings,
            name=options.name,
            overwrite=options.overwrite,
            processes=options.processes,
            progress=counter.show,
        )
    first, *rest = told(made.summary)
    print(f"{options.out}: {first}")
    for line in rest:
        print(line)
    rate = made.documents / made.seconds
    print(f"  {made.documents:,} documents in {made.seconds:,.1f} s, {rate:,.0f} docs/s")
    return 0
