"""What a GPU makes of training: steps, proxies, exact search, whole epochs. Needs no Ray.

    python benchmarks/gpu.py [--json FILE] [--parts step,proxies,search,epochs]
        [--shapes amazontitles-670k,amazontitles-3m] [--batch 256,1024] [--dim 300] [--tf32]
    python benchmarks/gpu.py --device cpu --small      everything once, in small, on a CPU
    python benchmarks/gpu.py --paper                   what steps cost by formula; runs nothing

Prints Markdown tables under the card's name. Documents are made (``gpu_data``); shortlists are
drawn evenly over all labels, so they overlap as little as can be and a step is as dear as can be.
All times are from an idle device to an idle device, medians after a warm-up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gpu_without_faiss
import torch
from gpu_clock import Peaks, machine
from gpu_counts import DRAWN, Combination, count, expected_candidates
from gpu_data import SHAPES, SMALL
from gpu_step import COMBINATIONS, measure

from ray_xml.synth_shapes import Statistics

Row = Mapping[str, Any]
Format = tuple[str, Callable[[Row], object]]  # a column's heading and what a row has in it

PARTS = ("step", "proxies", "search", "epochs")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.paper:
        print(paper(options))
        return
    missing = gpu_without_faiss.stand_in()
    torch.set_float32_matmul_precision("high" if options.tf32 else "highest")
    device = options.device
    size, copied = (256, 1 << 22) if options.small else (8192, 1 << 30)
    peaks = Peaks.measure(device, size=size, copied=copied)
    results: dict[str, Any] = {
        "machine": machine(device) | {"faiss": not missing, "tf32": options.tf32},
        "dim": options.dim,
        "peaks": peaks.as_dict(),
    }
    print(heading(results), flush=True)
    for part in options.parts:
        rows: list[Row] = []
        for name, shape in options.shapes.items():
            rows += _measured(part, name, shape, peaks, options)
        results[part] = rows
        print(f"\n## {part}\n\n{table(rows, COLUMNS[part])}", flush=True)
        if options.json:  # after each part: a later one may run out of memory
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="a tiny shape, few repeats")
    parser.add_argument("--paper", action="store_true", help="print counts by formula and stop")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--shapes", default=None, help=", ".join(SHAPES))
    parser.add_argument("--batch", default=None, help="documents of a batch; 256,1024")
    parser.add_argument("--dim", type=int, default=None, help="300")
    parser.add_argument("--tf32", action="store_true", help="float32 products as TF32")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(arguments)
    known = SMALL if options.small else SHAPES
    names = options.shapes.split(",") if options.shapes else list(known)
    for given, choices in ((names, known), (options.parts.split(","), PARTS)):
        if unknown := [name for name in given if name not in choices]:
            parser.error(f"{unknown[0]!r} is none of {', '.join(choices)}")
    options.shapes = {name: known[name] for name in names}
    options.parts = options.parts.split(",")
    batch = options.batch or ("32" if options.small else "256,1024")
    options.batch = [int(size) for size in batch.split(",")]
    options.dim = options.dim or (32 if options.small else 300)
    options.steps, options.repeats = (3, 2) if options.small else (16, 5)
    options.queries = 64 if options.small else 8192
    if options.device == "cuda" and not options.paper and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; --device cpu --small runs on the CPU")
    options.device = torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")
    return options


def _measured(
    part: str, name: str, shape: Statistics, peaks: Peaks, options: argparse.Namespace
) -> list[Row]:
    if part == "step":
        return [row for how in COMBINATIONS for row in measure(name, shape, how, peaks, options)]
    import gpu_refresh  # imports FAISS, or what stands in for it

    if part == "proxies":
        return [gpu_refresh.proxy_row(name, shape, options)]
    if part == "search":
        return [gpu_refresh.search_row(name, shape, peaks, options)]
    return list(gpu_refresh.epoch_rows(name, shape, options))


# ---- tables --------------------------------------------------------------------------------------


def _number(key: str, digits: int, scale: float = 1.0) -> Callable[[Row], object]:
    def text(row: Row) -> str:
        value = row.get(key)
        return "-" if value is None else f"{scale * value:,.{digits}f}"

    return text


def _text(key: str) -> Callable[[Row], object]:
    return lambda row: row[key]


def _phases(row: Row) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in row["seconds"].items())


_SHAPE: list[Format] = [("shape", _text("shape"))]
_LABELS: list[Format] = [*_SHAPE, ("L", _number("labels", 0))]
_PEAK: list[Format] = [("peak GiB", _number("peak_gib", 2))]
COLUMNS: dict[str, list[Format]] = {
    "step": [
        *_LABELS,
        ("rows, optimizer", lambda row: f"{row['storage']}, {row['optimizer']}"),
        ("batch", _number("batch", 0)),
        ("candidates", _number("candidates", 0)),
        ("ms a step", lambda row: row.get("failed") or _number("ms", 3)(row)),
        ("in an epoch", _number("loop_ms", 3)),
        ("batch made in, ms", _number("build_ms", 3)),
        ("documents/s", _number("documents_per_second", 0)),
        ("TFLOP/s", _number("flop_per_second", 2, 1e-12)),
        ("% of products' peak", _number("of_product_peak", 1, 100)),
        ("GB/s", _number("bytes_per_second", 0, 1e-9)),
        ("% of copy's peak", _number("of_memory_peak", 1, 100)),
        *_PEAK,
    ],
    "proxies": [
        *_LABELS,
        ("pairs", _number("pairs", 0)),
        ("begin_cycle, s", _number("begin_cycle_seconds", 2)),
        ("a pass, s", _number("pass_seconds", 2)),
        ("set_proxies, s", _number("set_proxies_seconds", 2)),
        *_PEAK,
    ],
    "search": [
        *_LABELS,
        ("queries/s, torch", _number("queries_per_second", 0)),
        ("TFLOP/s", _number("flop_per_second", 2, 1e-12)),
        ("% of float32 peak", _number("of_product_peak", 1, 100)),
        ("index", _text("index")),
        ("queries/s, index", _number("index_queries_per_second", 0)),
        *_PEAK,
    ],
    "epochs": [
        *_SHAPE,
        ("epoch", _text("epoch")),
        ("documents", _number("documents", 0)),
        ("documents/s", _number("documents_per_second", 0)),
        ("candidates", _number("candidates", 0)),
        ("loss", _number("loss", 4)),
        ("seconds by phase", _phases),
        *_PEAK,
    ],
}


def table(rows: Sequence[Row], columns: Sequence[Format]) -> str:
    """A Markdown table."""
    lines = [
        "| " + " | ".join(heading for heading, _ in columns) + " |",
        "|---" * len(columns) + "|",
    ]
    lines += ["| " + " | ".join(str(value(row)) for _, value in columns) + " |" for row in rows]
    return "\n".join(lines)


def heading(results: Mapping[str, Any]) -> str:
    """The card, the software and the measured peaks."""
    made, peaks = results["machine"], results["peaks"]
    faiss = "with FAISS" if made["faiss"] else "without FAISS (numpy scores the pairs found)"
    products = "TF32" if made["tf32"] else "float32"
    return (
        f"# {made['device']}\n\ntorch {made['torch']}, {faiss}, D = {results['dim']}. "
        "Measured peaks: "
        f"{peaks['bfloat16'] / 1e12:.2f} TFLOP/s in bfloat16, {peaks['float32'] / 1e12:.2f} in "
        f"{products}, {peaks['memory'] / 1e9:.1f} GB/s copied (read and written)."
    )


def paper(options: argparse.Namespace) -> str:
    """Counts of a step by formula, with bfloat16 products."""
    rows = []
    for name, shape in options.shapes.items():
        for storage, optimizer in COMBINATIONS:
            for batch in options.batch:
                candidates = round(expected_candidates(shape.labels, batch))
                occurrences = round(shape.features_per_document) * batch
                counts = count(
                    Combination(storage, optimizer, torch.bfloat16),
                    documents=batch,
                    candidates=candidates,
                    dim=options.dim,
                    tokens=min(occurrences, shape.features),
                    occurrences=occurrences,
                )
                rows.append(
                    {
                        "shape": name,
                        "labels": shape.labels,
                        "storage": storage,
                        "optimizer": optimizer,
                        "batch": batch,
                        "candidates": candidates,
                        "low": counts.low,
                        "full": counts.full,
                        "rows": counts.rows,
                        "scores": counts.scores,
                        "tokens": counts.tokens,
                    }
                )
    columns: list[Format] = [
        *COLUMNS["step"][:5],
        ("GFLOP bfloat16", _number("low", 1, 1e-9)),
        ("GFLOP float32", _number("full", 1, 1e-9)),
        ("MB of rows", _number("rows", 0, 1e-6)),
        ("MB of scores", _number("scores", 0, 1e-6)),
        ("MB of tokens", _number("tokens", 0, 1e-6)),
    ]
    return f"{table(rows, columns)}\n\nWith {DRAWN:,} labels drawn at random into each batch."


if __name__ == "__main__":
    main()
