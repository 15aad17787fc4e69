"""``ray-xml evaluate``, ``predict``, ``calibrate`` and ``export``: what uses a trained model."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from ray_xml.text_cli import add_columns, columns

if TYPE_CHECKING:
    from ray_xml.cluster.predict import Crews
    from ray_xml.predictor import Predictor

RUN = "a run folder or an exported model, or the URL of one"
_EXPLAINED = 100  # documents: each takes some hundred predictions


def add_use_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands to the command line's."""
    evaluate = commands.add_parser("evaluate", help="measure a run's best model on a split")
    evaluate.add_argument("run", help=RUN)
    evaluate.add_argument("--data", help="data-set folder or URL (default: the run's)")
    evaluate.add_argument("--split", default="test")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object, in percent")
    evaluate.add_argument(
        "--no-filter",
        action="store_true",
        help="count the pairs too that the data set names to be left out",
    )
    _add_cluster_options(evaluate)
    evaluate.set_defaults(command=_evaluate)

    predict = commands.add_parser("predict", help="labels for documents")
    predict.add_argument("run", help=RUN)
    predict.add_argument(
        "data",
        help="data-set folder, XC file, .parquet or .arrow file, or a folder of these; with --text "
        "a .csv, .jsonl, .parquet or .txt file of texts",
    )
    add_columns(predict, required=False)
    predict.add_argument(
        "--embeddings", metavar="FILE.npy", help="with --text: the texts' vectors, a row each"
    )
    predict.add_argument("--split", default="test", help="of a data-set folder")
    predict.add_argument("--top-k", type=positive, default=5)
    predict.add_argument(
        "--precision",
        type=_share,
        metavar="P",
        help="of these, only those above the score from which a share P was right in validation; "
        "needs `ray-xml calibrate`",
    )
    predict.add_argument(
        "--explain",
        action="store_true",
        help=f"with --text, of at most {_EXPLAINED} documents: say why each label is given",
    )
    predict.add_argument(
        "--out",
        metavar="PLACE",
        help="a .jsonl, .npz or .parquet file; on Ray the folder or URL of Parquet parts",
    )
    predict.add_argument(
        "--part-size", type=positive, metavar="N", help="documents of a part (default: 51,200)"
    )
    _add_cluster_options(predict)
    predict.set_defaults(command=_predict)

    calibrate = commands.add_parser(
        "calibrate", help="learn from validation documents how often a score is right"
    )
    calibrate.add_argument("run", help="a run folder, or its URL; its data set must be there")
    calibrate.set_defaults(command=_calibrate)

    export = commands.add_parser("export", help="a small folder for prediction alone")
    export.add_argument("run", help="a run folder, or the URL of one")
    export.add_argument("out", help="the folder to make; evaluate and predict take it as a run")
    export.add_argument("--dtype", choices=("fp16", "int8"), default="int8")
    export.add_argument(
        "--documents",
        action="store_true",
        help="take along the names of training documents, for predict --explain",
    )
    export.set_defaults(command=_export)


def positive(text: str) -> int:
    """An option's value that must be at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def _share(text: str) -> float:
    """An option's value above 0 and up to 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1, such as 0.9")
    return number


def _add_cluster_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="on Ray, by so many document workers"
    )
    parser.add_argument(
        "--label-shards",
        type=positive,
        metavar="M",
        help="on Ray, the labels held by so many processes (default: as many as workers)",
    )
    parser.add_argument(
        "--address", metavar="ADDRESS", help="the Ray cluster to join, such as auto"
    )


def _on_ray(options: argparse.Namespace) -> bool:
    """Whether Ray was asked for, or this process is a Ray job."""
    asked = (options.workers, options.label_shards, options.address)
    return any(one is not None for one in asked) or bool(os.environ.get("RAY_ADDRESS"))


def _crews(options: argparse.Namespace) -> Crews:
    from ray_xml.cluster.predict import Crews

    return Crews(options.workers, options.label_shards, options.address)


def _evaluate(options: argparse.Namespace) -> int:
    from ray_xml.console import Counter
    from ray_xml.data_url import open_data
    from ray_xml.evaluation import METRICS, baseline, evaluate
    from ray_xml.metrics import format_table
    from ray_xml.model_place import ModelPlace
    from ray_xml.predictor import Predictor
    from ray_xml.run_url import local_run

    filtered = not options.no_filter
    with Counter() as counter:

        def progress(done: int, total: int) -> None:
            counter.show("evaluate", done, total)

        if _on_ray(options):
            from ray_xml.cluster.predict import evaluate as evaluate_on_ray

            place = ModelPlace.find(options.run)
            config, epoch = place.config(), place.epoch
            source = options.data or config.data
            data = open_data(source)
            results = evaluate_on_ray(
                options.run,
                source,
                options.split,
                filtered=filtered,
                crews=_crews(options),
                progress=progress,
            )
        else:
            predictor = Predictor.load(local_run(options.run))
            config, epoch = predictor.config, predictor.model.epoch
            data = open_data(options.data or config.data)
            results = evaluate(predictor, data, options.split, filtered=filtered, progress=progress)
    if options.json:
        print(json.dumps({key: round(value, 4) for key, value in results.items()}))
        return 0
    plain = baseline(data, options.split, config.dataset, filtered=filtered)
    rows = {"ray_xml": results, "most frequent labels": plain}
    documents = data.split(options.split).num_documents
    model = "exported model" if epoch is None else f"model of epoch {epoch}"
    print(f"{options.split} split of {data.meta.name}: {documents:,} documents, {model}")
    pairs = data.split(options.split).filtered
    if pairs is not None:
        told = "left out (--no-filter counts them)" if filtered else "counted"
        print(f"  {pairs.nnz:,} pairs of the filter are {told}")
    for kinds in (("P", "nDCG"), ("PSP", "PSnDCG"), ("R",)):
        keys = [key for key in METRICS if key.split("@")[0] in kinds]
        print("\n" + format_table(rows, keys))
    bins = [f"{kind}@5/{where}" for kind in ("P", "R") for where in ("head", "torso", "tail")]
    print("\nby label frequency\n" + format_table(rows, bins))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from ray_xml.predict_io import ENDINGS, documents, predict_to, sink
    from ray_xml.predictor import Predictor
    from ray_xml.run_url import local_run

    if _on_ray(options) and (options.out is None or options.out.endswith(ENDINGS)):
        from ray_xml.errors import ConfigError

        raise ConfigError(
            f"--out {options.out or 'is not set'}: on Ray, predictions go into a folder of Parquet "
            "parts; give --out FOLDER"
        )
    if not options.text and (options.embeddings or options.embedding_column):
        from ray_xml.errors import ConfigError

        raise ConfigError("embeddings come beside texts: name their columns with --text")
    if options.explain:
        return _explain(options)
    if _on_ray(options):
        return _predict_parts(options)
    predictor = Predictor.load(local_run(options.run))
    threshold = _threshold(options, predictor)
    with sink(options.out, predictor.names) as target:
        if options.text:
            from ray_xml.predict_text import text_documents

            given = text_documents(
                options.data, columns(options), predictor.vectorizer, options.embeddings
            )
        else:
            given = documents(options.data, options.split, predictor.num_features)
        count = predict_to(predictor, given, target, top=options.top_k, threshold=threshold)
    if options.out:
        print(f"{options.out}: {count:,} documents")
    return 0


def _threshold(options: argparse.Namespace, predictor: Predictor) -> float | None:
    if options.precision is None:
        return None
    return predictor.model.probability.threshold(options.precision)


def _explain(options: argparse.Namespace) -> int:
    from itertools import islice

    from ray_xml.errors import ConfigError
    from ray_xml.explain_text import explained
    from ray_xml.predict_text import texts_of
    from ray_xml.predictor import Predictor
    from ray_xml.run_url import local_run

    if not options.text:
        raise ConfigError("--explain: words explain a label; give texts, with --text COLUMNS")
    if options.out:
        raise ConfigError("--explain prints its answers; leave out --out")
    given = (
        (text, None if vectors is None else vectors[place])
        for texts, vectors in texts_of(options.data, columns(options), options.embeddings)
        for place, text in enumerate(texts)
    )
    texts = list(islice(given, _EXPLAINED + 1))
    if len(texts) > _EXPLAINED:
        raise ConfigError(
            f"--explain: {options.data} has more than {_EXPLAINED} documents; give a few of them"
        )
    predictor = Predictor.load(local_run(options.run))
    threshold = _threshold(options, predictor)
    for number, (text, vector) in enumerate(texts):
        print(f"document {number}")
        for line in explained(
            predictor, text, top_k=options.top_k, threshold=threshold, embedding=vector
        ):
            print(line)
    return 0


def _calibrate(options: argparse.Namespace) -> int:
    from ray_xml.calibrate import TOP, calibrate
    from ray_xml.data_url import open_data
    from ray_xml.run_folder import RunFolder
    from ray_xml.run_storage import RunStorage
    from ray_xml.run_url import local_run
    from ray_xml.storage import is_url

    run = RunFolder(local_run(options.run))
    config = run.config()
    fitted, documents = calibrate(run, open_data(config.data))
    storage = options.run if is_url(options.run) else config.resources.storage
    if storage is not None:
        RunStorage(storage).send_probability(run)
    print(
        f"{run.probability_file}: the {TOP} best predictions of {documents:,} validation documents,"
        f" of {fitted.counts.sum():,} {fitted.right.sum() / fitted.counts.sum():.1%} are right"
    )
    print(f"  probability = σ({fitted.slope:.3f} · log-odds of the score {fitted.offset:+.3f})")
    return 0


def _predict_parts(options: argparse.Namespace) -> int:
    from ray_xml.cluster.predict import PART, predict
    from ray_xml.model_place import ModelPlace
    from ray_xml.model_words import label_names_of
    from ray_xml.predict_inputs import Texts
    from ray_xml.run_url import local_run

    written = predict(
        options.run,
        options.data,
        options.out,
        split=options.split,
        texts=Texts(columns(options), options.embeddings) if options.text else None,
        top=options.top_k,
        precision=options.precision,
        part_size=options.part_size or PART,
        names=label_names_of(local_run(options.run), ModelPlace.find(options.run).config().data),
        crews=_crews(options),
    )
    told = f"{options.out}: {written.documents:,} documents in {written.parts} parts"
    if written.made:
        told += f"; {written.made:,} by this command, {written.rate:,.0f} docs/s"
    print(told)
    return 0


def _export(options: argparse.Namespace) -> int:
    from contextlib import suppress
    from pathlib import Path

    from ray_xml.data_url import open_data
    from ray_xml.errors import DataSetError
    from ray_xml.export import export
    from ray_xml.model import model_of_run
    from ray_xml.run_url import local_run
    from ray_xml.storage import is_url

    model = model_of_run(local_run(options.run))
    data = Path(model.config.data)
    if is_url(model.config.data):
        with suppress(DataSetError):
            data = open_data(model.config.data).path
    size = export(model, data, Path(options.out), options.dtype, document_names=options.documents)
    print(f"{options.out}: model of epoch {model.epoch} as {options.dtype}, {size / 1e6:,.1f} MB")
    return 0
