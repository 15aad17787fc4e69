"""The results as Markdown: for each data set one table of accuracy and one of cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]

_SHORT = 100  # characters of a failure within a table; the list below it has all


class Column(NamedTuple):
    """A column: its heading, the value of a row (None: there is none), its format."""

    heading: str
    value: Callable[[Row], float | None]
    digits: int
    higher_is_better: bool


def _metric(key: str) -> Column:
    return Column(key, lambda row: row["metrics"].get(key), 2, True)


def _cost(heading: str, value: Callable[[Row], float | None], digits: int) -> Column:
    return Column(heading, value, digits, False)


def accuracy_columns(metrics: Sequence[str]) -> list[Column]:
    return [_metric(key) for key in metrics]


def cost_columns(memory: str) -> list[Column]:
    """Columns of what training and prediction cost; ``memory`` is "PSS" or "RSS"."""
    peak = f"peak_{memory.lower()}"
    return [
        _cost("training, wall s", lambda row: row["train"]["wall_seconds"], 1),
        _cost("of which outside epochs", lambda row: row.get("training_seconds_outside_epochs"), 1),
        _cost("training, CPU s", lambda row: row["train"]["cpu_seconds"], 1),
        _cost("training, peak GiB", lambda row: row["train"][peak] / 2**30, 2),
        _cost("model, MB", lambda row: row["model_bytes"] / 1e6, 1),
        _cost("load, s", lambda row: row["load_seconds"], 2),
        _cost("prediction, peak GiB", lambda row: row["predict"][peak] / 2**30, 2),
        _cost("batch, ms/doc", lambda row: row["batch_ms_per_document"], 3),
        _cost("one by one, ms p50", lambda row: row["one_ms_p50"], 3),
        _cost("p99", lambda row: row["one_ms_p99"], 3),
    ]


def table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """A Markdown table, the best figure of each column in bold; failed rows say why in short."""
    measured = [row for row in rows if "failed" not in row]
    texts = {
        column.heading: _texts([column.value(row) for row in measured], column)
        for column in columns
    }
    lines = ["| | " + " | ".join(column.heading for column in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    place = 0
    for row in rows:
        if "failed" in row:
            cells = [_one_line(row["failed"], _SHORT), *[""] * (len(columns) - 1)]
        else:
            cells = [texts[column.heading][place] for column in columns]
            place += 1
        lines.append(f"| {row['system']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _texts(values: Sequence[float | None], column: Column) -> list[str]:
    """Each value as its cell; those that round to the best one are bold, where others are not."""
    rounded = [None if value is None else round(value, column.digits) for value in values]
    known = [value for value in rounded if value is not None]
    best = (max if column.higher_is_better else min)(known) if len(set(known)) > 1 else None
    texts = []
    for value in rounded:
        text = "-" if value is None else f"{value:,.{column.digits}f}"
        texts.append(f"**{text}**" if value is not None and value == best else text)
    return texts


def _one_line(text: str, length: int | None = None) -> str:
    line = " ".join(text.split())
    if length is not None and len(line) > length:
        line = line[:length] + " …"
    return line.replace("|", r"\|")


def report(results: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """The whole of a results file as Markdown."""
    machine, memory = results["machine"], results["memory"]
    threads = f"{results['threads']} thread{'s' if results['threads'] > 1 else ''}"
    parts = [
        "# ray_xml and its peers",
        f"{machine['date']}, {machine['cpu']}, {results['threads']} of {machine['cpus']} CPUs, "
        f"{machine['memory_gib']:g} GiB. One system at a time, each with {threads}. "
        "Bold: the best of its column.",
        f"Training is the whole command, from the start of its interpreter to the saved model; "
        "“outside epochs” is what of that ray_xml spends on Ray's start and stop, imports and "
        f"reading. Peaks are sums over all processes ({memory}). Prediction is in a fresh process; "
        f"batch is the whole test set (median of {results['repeats']}), one by one is one call a "
        f"document ({results['singles']} documents).",
    ]
    for one in results["data_sets"]:
        parts.append(
            f"## {one['name']}\n\n{one['train']:,} training and {one['test']:,} test documents, "
            f"{one['features']:,} features, {one['labels']:,} labels."
        )
        parts.append(
            "Accuracy on test in %, **higher is better**:\n\n"
            + table(one["rows"], accuracy_columns(metrics))
        )
        parts.append("Cost, **lower is better**:\n\n" + table(one["rows"], cost_columns(memory)))
        parts.append("\n".join(_described(row) for row in one["rows"]))
    return "\n\n".join(parts) + "\n"


def _described(row: Row) -> str:
    if "failed" in row:
        return f"* {row['system']}: {_one_line(row['failed'])}"
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return f"* {row['system']}: {row['settings']}; {versions}"
