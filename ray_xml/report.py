"""A run as one HTML file: joins the parts."""

from __future__ import annotations

from collections.abc import Sequence

from ray_xml.config import dump_config
from ray_xml.report_curves import curves, time_and_memory
from ray_xml.report_data import Gathered
from ray_xml.report_documents import sample_documents
from ray_xml.report_environment import command, environment, machine, now, versions
from ray_xml.report_html import details, facts, notes, page, section, words
from ray_xml.report_labels import by_frequency, one_by_one
from ray_xml.report_map import label_map
from ray_xml.report_scores import metrics_table, score_charts
from ray_xml.run_text import duration


def report_page(gathered: Gathered, arguments: Sequence[str]) -> str:
    """The file's text.

    Args:
        arguments: of the command line that asked for it.
    """
    found, predictor = gathered.measured, gathered.predictor
    title = gathered.config.dataset.name or (found.data.meta.name if found else "a run")
    body = [
        f"<h1>{words(title)}</h1>",
        facts([*about(gathered), *_made(arguments)]),
        notes([*_standing(gathered), *gathered.notes]),
    ]
    if found is not None:
        body.append(section(f"Accuracy on {found.split}", metrics_table(found)))
    body.append(section("Training", curves(gathered.lines, gathered.losses)))
    body.append(section("Time and memory", time_and_memory(gathered.lines)))
    if found is not None and predictor is not None:
        body += [
            section("Labels by frequency", by_frequency(found)),
            section("What a score is worth", score_charts(found)),
            section("Labels one by one", one_by_one(gathered, found)),
            section("Documents", sample_documents(gathered, found, predictor)),
            section("Map of the labels", label_map(gathered, found, predictor.model)),
        ]
    body.append(
        section(
            "Config and environment",
            details("config.yaml", dump_config(gathered.config)),
            details("environment", environment()),
        )
    )
    body.append(f"<footer>{words(versions())}, {words(now())}</footer>")
    return page(f"{title} · ray_xml report", body)


def about(gathered: Gathered) -> list[tuple[str, str]]:
    """(what, which) of the run, its data and its model."""
    found, status, config = gathered.measured, gathered.status, gathered.config
    pairs = [("run", gathered.source), ("data set", config.data)]
    if found is not None:
        meta = found.data.meta
        train = meta.splits["train"].documents
        pairs[1] = ("data set", f"{meta.name}, {found.data.path}")
        pairs += [
            ("labels, features", f"{meta.num_labels:,} labels, {meta.num_features:,} features"),
            ("documents", f"{train:,} train, {found.documents:,} {found.split}"),
            ("model", _model(gathered, found.epoch)),
        ]
    if status is not None:
        done = f"{status.state}, {status.done} of {status.total} epochs"
        spent = sum(sum((line.get("seconds") or {}).values()) for line in status.lines)
        pairs.append(("training", f"{done}, {duration(spent)}"))
        again = ["train", f"{gathered.source.rstrip('/')}/config.yaml", "run=NEW"]
        pairs.append(("trained again by", command(again)))
    return [*pairs, ("config", config.identity())]


def _model(gathered: Gathered, epoch: int) -> str:
    size = f"{gathered.size / 1e6:,.1f} MB"
    return f"epoch {epoch}, {size} {'exported' if gathered.status is None else 'checkpoint'}"


def _made(arguments: Sequence[str]) -> list[tuple[str, str]]:
    return [
        ("report", command(arguments)),
        ("made", f"{now()} with {versions()}"),
        ("on", machine()),
    ]


def _standing(gathered: Gathered) -> list[str]:
    status = gathered.status
    if status is None or status.state == "finished":
        return []
    what = "is going on" if status.state == "going on" else "was stopped"
    return [f"the run {what}: {status.done} of {status.total} epochs are done"]
