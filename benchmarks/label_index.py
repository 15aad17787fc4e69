"""Kinds of label index side by side: time to build, time to search, recall of the best labels.

    OMP_NUM_THREADS=1 python benchmarks/label_index.py 100000 1400000

The vectors are a mixture: centres, and unit vectors around them at a cosine of about 0.78, with a
spectrum that falls as 1/√rank under a random rotation. Queries lie as far from a label each as
labels do from their centre. Times are CPU seconds of this process, so that another beside it
counts little. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from ray_xml.best_k import best_k
from ray_xml.coarse_search import CoarseSearch
from ray_xml.label_index import IndexConfig, LabelIndex
from ray_xml.pair_scores import pair_scores

_NOISE = 0.8
_BLOCK = 50_000


class Plan(NamedTuple):
    """An approximate index, and the settings under which it is searched."""

    kind: Literal["pq", "ivf"]
    numbers: int  # that share a code
    probes: list[int]
    refine: list[int]


PLANS = [
    Plan("pq", 2, [0], [2, 4, 8]),
    Plan("pq", 3, [0], [4, 8]),
    Plan("pq", 4, [0], [4, 8]),
    Plan("ivf", 2, [64, 128, 256], [4, 6]),
    Plan("ivf", 3, [256], [6, 8]),
]


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def mixture(
    count: int, dim: int, centres: int, queries: int, half: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(vectors float16 or float32 [count, dim], queries float32 [queries, dim])."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    basis = spectrum[:, None] * rotation / np.linalg.norm(spectrum)

    def draw(n: int) -> np.ndarray:
        return np.asarray(rng.standard_normal((n, dim), dtype=np.float32) @ basis)

    middle = unit(draw(centres))
    vectors = np.empty((count, dim), np.float16 if half else np.float32)
    for first in range(0, count, _BLOCK):
        size = min(_BLOCK, count - first)
        near = middle[rng.integers(0, centres, size)]
        vectors[first : first + size] = unit(near + _NOISE * draw(size))
    labels = vectors[rng.integers(0, count, queries)].astype(np.float32)
    return vectors, unit(labels + _NOISE * draw(queries))


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


class Sheet:
    """The table of one set of vectors."""

    def __init__(self, count: int, dim: int, k: int, queries: int) -> None:
        config = IndexConfig(index="flat")
        half = config.dtype(count) == np.float16
        self.vectors, self.queries = mixture(count, dim, 50_000, queries, half)
        self.k = k
        self.flat = LabelIndex(np.arange(count, dtype=np.int32), self.vectors, config)
        self.best = self.flat.search(self.queries, k)[0]
        print(
            f"\n{count:,} labels, D = {dim}, {self.vectors.dtype}, "
            f"{self.vectors.nbytes / 1e6:,.0f} MB, k = {k}\n"
        )
        print(
            "| kind | numbers a code | probes | refine | MB beside | build, s | queries/s ", end=""
        )
        print("| × flat | one query, ms | recall |")
        print("|---|" + "---:|" * 9)
        self.flat_rate = 0.0
        self.row("flat", "", "", "", 0, 0, lambda asked: self.flat.search(asked, k)[0])

    def row(
        self, kind: str, numbers: object, probes: object, refine: object, beside: float,
        build: float, search: Callable[[np.ndarray], np.ndarray],
    ) -> None:  # fmt: skip
        found = search(self.queries)
        batch = min(seconds(lambda: search(self.queries)) for _ in range(2))
        ones = [seconds(lambda row=row: search(row[None])) for row in self.queries[:10]]  # type: ignore[misc]
        rate = len(self.queries) / batch
        self.flat_rate = self.flat_rate or rate
        pairs = zip(self.best, found, strict=True)
        recall = np.mean([np.isin(best, got).mean() for best, got in pairs])
        print(
            f"| {kind} | {numbers} | {probes} | {refine} | {beside / 1e6:,.0f} | {build:.0f} "
            f"| {rate:,.0f} | {rate / self.flat_rate:.1f} | {1000 * np.median(ones):.1f} "
            f"| {recall:.3f} |",
            flush=True,
        )

    def run(self, plan: Plan) -> None:
        start = time.process_time()
        coarse = CoarseSearch(self.vectors, plan.kind, 1, numbers=plan.numbers)
        build = time.process_time() - start
        for probes in plan.probes:
            if plan.kind == "ivf":
                coarse.probes = probes
            for refine in plan.refine:

                def search(asked: np.ndarray, refine: int = refine) -> np.ndarray:
                    found = coarse.search(asked, refine * self.k)
                    return best_k(found, pair_scores(asked, self.vectors, found), self.k)[0]

                shown = probes if plan.kind == "ivf" else ""
                self.row(plan.kind, plan.numbers, shown, refine, coarse.nbytes, build, search)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("counts", type=int, nargs="+", help="label counts")
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--queries", type=int, default=256)
    args = parser.parse_args()
    for count in args.counts:
        sheet = Sheet(count, args.dim, args.k, args.queries)
        for plan in PLANS:
            sheet.run(plan)


if __name__ == "__main__":
    main()
