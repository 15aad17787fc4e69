"""What a search came to: a table, a config that trains as it is, a comparison with the default."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ray_xml.disk import replace_text
from ray_xml.errors import TrainingError
from ray_xml.run_config import RunConfig
from ray_xml.run_text import counted
from ray_xml.search_log import SearchLog, TrialRecord
from ray_xml.tune_folder import TuneFolder
from ray_xml.tune_pbt import lineage
from ray_xml.tune_plot import plot
from ray_xml.tune_space import tuned


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord:
    """The one with the highest value; of equal ones the first, so the default needs no beating.

    Raises:
        TrainingError: none has a value.
    """
    found = [one for one in trials if one.best is not None]
    if not found:
        reasons = "; ".join(f"trial {one.number}: {one.reason}" for one in trials if one.reason)
        raise TrainingError(f"no trial came to a validation ({reasons or 'none was started'})")
    return max(found, key=lambda one: (one.best or 0.0, -one.number))


def write_results(folder: Path, config: RunConfig, log: SearchLog) -> str:
    """Writes best.yaml, trials.csv and trials.svg into the search's folder.

    Args:
        config: the search's, as given: with the space, before anything was tried.

    Returns:
        what is to be printed.
    """
    trials = log.trials()
    best, metric = best_trial(trials), config.tune.metric or config.training.metric
    replace_text(folder / "best.yaml", best_yaml(config, trials, metric))
    replace_text(folder / "trials.csv", _csv(trials, list(config.tune.space), metric))
    replace_text(folder / "trials.svg", plot(trials, config.tune.space, metric, best.number))
    run = TuneFolder(folder).trial(best.number).path
    model = f"the best run: ray-xml evaluate {run}"
    return "\n\n".join([table(trials, metric), comparison(trials, metric), model])


def best_yaml(config: RunConfig, trials: Sequence[TrialRecord], metric: str) -> str:
    """A config file that trains with the best trial's parameters and without the search. What
    the config leaves to the data stays so: on more documents it may be decided otherwise.

    Where values changed as the run went on, it has the last ones, and all of them in a comment.
    """
    best = best_trial(trials)
    made = tuned(config, {} if best.number == 0 else best.parameters)
    tree = made.model_dump(mode="json", exclude_defaults=True, exclude={"run", "tune"})
    head = [
        f"# Trial {best.number} of a search over {counted(len(config.tune.space), 'key')}: "
        f"{metric} {best.best:.2f} on validation after epoch {best.best_epoch}.",
        *_schedule(trials, best),
        "# Train with it: ray-xml train best.yaml run=RUN",
    ]
    return "\n".join(head) + "\n" + str(yaml.safe_dump(tree, sort_keys=False))


def _schedule(trials: Sequence[TrialRecord], best: TrialRecord) -> list[str]:
    """Comments that say the values, and where they changed."""
    line = lineage(trials, best.number)
    if len(line) == 1:
        return [f"#   {key}: {_text(value)}" for key, value in best.parameters.items()]
    told = [
        "# Its values changed as it went on; below are the last ones, which a run that has them",
        f"# from its first epoch need not be as good with. The run is in trials/{best.number:03d}.",
    ]
    for one, until in zip(line, [*(one.since for one in line[1:]), best.epochs], strict=True):
        values = ", ".join(f"{key}: {_text(value)}" for key, value in one.parameters.items())
        told.append(f"#   epochs {one.since + 1} to {until} (trial {one.number}): {values}")
    return told


def table(trials: Sequence[TrialRecord], metric: str) -> str:
    """All trials, the best first, as text."""
    ranked = sorted(trials, key=lambda one: (one.best is None, -(one.best or 0.0), one.number))
    rows = [["trial", metric, "epochs", "seconds", "status", "parameters"]]
    for one in ranked:
        rows.append(
            [
                str(one.number),
                "" if one.best is None else f"{one.best:.2f}",
                str(one.epochs),
                f"{one.seconds:.0f}",
                one.status,
                describe(one),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        left = [cell.rjust(width) for cell, width in zip(row[:4], widths, strict=False)]
        lines.append("  ".join([*left, row[4].ljust(widths[4]), row[5]]).rstrip())
    failed = [f"trial {one.number} failed: {one.reason}" for one in trials if one.reason]
    return "\n".join([*lines, *failed])


def comparison(trials: Sequence[TrialRecord], metric: str) -> str:
    """The best trial beside the config as it stands, at the same number of epochs."""
    best = best_trial(trials)
    default = next((one for one in trials if one.number == 0), None)
    if default is None or default.best is None:
        return "the config as it stands came to no validation, so there is nothing to compare with"
    if best.number == 0:
        return f"no trial beat the config as it stands: {metric} {default.best:.2f}"
    common = min(best.epochs, default.epochs)
    first, second = best.best_within(common), default.best_within(common)
    lines = []
    if first is not None and second is not None:
        lines.append(
            f"after {common} epochs each: {metric} {first:.2f} with trial {best.number}, "
            f"{second:.2f} with the config as it stands ({first - second:+.2f})"
        )
    lines.append(
        f"at their best: {best.best:.2f} (of {best.epochs} epochs, {best.seconds:.0f} s) and "
        f"{default.best:.2f} (of {default.epochs} epochs, {default.seconds:.0f} s)"
    )
    return "\n".join(lines)


def describe(trial: TrialRecord) -> str:
    """Its parameters in a line."""
    if trial.number == 0:
        return "(the config as it stands)"
    values = " ".join(f"{key}={_text(value)}" for key, value in trial.parameters.items())
    if trial.parent is None:
        return values
    return f"{values} (from trial {trial.parent} after epoch {trial.since})"


def _text(value: Any) -> str:
    """As YAML has it, so that it can be copied into a config."""
    return str(yaml.safe_dump(value)).splitlines()[0]


def _csv(trials: Sequence[TrialRecord], keys: list[str], metric: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "status", metric, "epochs", "seconds", "parent", "since", *keys])
    for one in trials:
        numbers = ["" if one.best is None else one.best, one.epochs, round(one.seconds, 1)]
        numbers += ["", ""] if one.parent is None else [one.parent, one.since]
        writer.writerow(
            [one.number, one.status, *numbers, *(one.parameters.get(key, "") for key in keys)]
        )
    return out.getvalue()
