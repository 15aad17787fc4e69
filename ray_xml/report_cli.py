"""``ray-xml report`` and ``ray-xml compare``: their options, and the files they write."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_xml.report_data import Gathered

_RUN = "a run folder or an exported model, or the URL of one"
_REPORT, _COMPARE = "report.html", "compare.html"


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands to the command line's."""
    report = commands.add_parser("report", help="a run as one HTML page: curves, accuracy, labels")
    report.add_argument("run", help=_RUN)
    _add_options(report, None, "report.html in the run folder; of a model or URL, here")
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="runs side by side as one HTML page")
    compare.add_argument("run", help=f"{_RUN}: what the others are held against")
    compare.add_argument("others", nargs="+", metavar="run", help="others on the same data set")
    _add_options(compare, _COMPARE, _COMPARE)
    compare.set_defaults(command=_compare)


def _add_options(parser: argparse.ArgumentParser, out: str | None, told: str) -> None:
    parser.add_argument("--out", default=out, metavar="FILE", help=f"(default: {told})")
    parser.add_argument("--split", default="test")
    parser.add_argument("--data", help="data-set folder or URL (default: the run's)")


def _report(options: argparse.Namespace) -> int:
    from ray_xml.report import report_page

    out = options.out or _beside(options.run)
    _check_out(out)
    gathered = _gather(options.run, options)
    return _write(out, report_page(gathered, ["report", options.run, *_given(options, None)]))


def _beside(run: str) -> str:
    """In the run's folder, where the run's other files are; an exported model has nothing more than
    it needs, and nothing is written at a URL."""
    from pathlib import Path

    from ray_xml.export import is_export

    inside = Path(run).is_dir() and not is_export(Path(run))
    return str(Path(run, _REPORT)) if inside else _REPORT


def _compare(options: argparse.Namespace) -> int:
    from ray_xml.compare import comparison_table
    from ray_xml.compare_page import compare_page

    _check_out(options.out)
    first = _gather(options.run, options)
    arguments = ["compare", options.run, *options.others, *_given(options, _COMPARE)]
    # One yardstick for all: the first run's data set and propensities.
    options.data = options.data or first.config.data
    others = [_gather(one, options, first) for one in options.others]
    text = compare_page([first, *others], arguments)
    print(comparison_table([first, *others]))
    return _write(options.out, text)


def _gather(run: str, options: argparse.Namespace, first: Gathered | None = None) -> Gathered:
    from dataclasses import replace

    from ray_xml.console import Counter
    from ray_xml.report_data import gather

    expected = None if first is None else first.config.dataset
    with Counter() as counter:

        def progress(done: int, total: int) -> None:
            counter.show(f"evaluate {run}", done, total)

        gathered = gather(run, options.split, options.data, expected=expected, progress=progress)
    for note in gathered.notes:
        print(f"note: {run}: {note}", file=sys.stderr)
    # Several models need not be held at a time: comparing takes what they came to alone.
    return gathered if options.command is _report else replace(gathered, predictor=None)


def _given(options: argparse.Namespace, out: str | None) -> list[str]:
    """The options as they would be typed, without those left as they are."""
    usual = {"out": out, "split": "test", "data": None}
    given = [(key, getattr(options, key)) for key, value in usual.items()]
    return [part for key, value in given if value != usual[key] for part in (f"--{key}", value)]


def _check_out(out: str) -> None:
    """Before minutes are spent on what cannot be written."""
    from pathlib import Path

    from ray_xml.errors import ConfigError

    if Path(out).is_dir():
        raise ConfigError(f"--out {out} is a folder; give a file in it, such as {out}/{_REPORT}")


def _write(out: str, text: str) -> int:
    from pathlib import Path

    from ray_xml.disk import replace_text, writing

    path = Path(out)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)
    print(f"{out}: {len(text.encode()) / 1e3:,.0f} kB")
    return 0
