"""On paper: time and bytes of an epoch and a refresh on many GPUs, from formulas and stated rates.

    python benchmarks/scaling_paper.py

Nothing here is measured but the rates marked so; the rest is arithmetic over what a step and a
refresh send and compute (docs/architecture.md). It shows which term stops shrinking, and when.
"""

from __future__ import annotations

from dataclasses import dataclass

D, LISTED = 300, 100
BF16 = 300e12  # FLOP/s that large products reach on one card
FP32 = 40e12  # likewise for the product that stays in float32
MEMORY = 2.0e12  # bytes/s of the card's memory that elementwise passes reach
NETWORK = 20e9  # bytes/s of one worker to the others
LATENCY = 30e-6  # seconds of a collective before its first byte, times log2 of the workers
COLLECTIVES = 5  # of a step
LAUNCHES = 1.0e-3  # seconds of a step's kernel launches
HOST = 9e-6  # seconds a document of a batch, one core, for its candidates: measured (docs/gpu.md)
MERGE = 47e-9  # seconds a label of a shard's answer, one core, to merge it: measured
LEXICAL = 1.35e-6  # seconds a label pair, one core, to build the sparse channel: measured
PASSES = 6  # over the scores of a step, in float32


@dataclass(frozen=True)
class Set:
    """A data set's counts."""

    name: str
    documents: float
    labels: float
    labels_per_document: float


SETS = (
    Set("3 M labels, 1.7 M documents", 1.7e6, 2.8e6, 36),
    Set("100 M labels, 100 M documents", 100e6, 100e6, 10),
)


def row(data: Set, workers: int, batch: int) -> dict[str, float]:
    """Seconds and bytes for a data set on so many cards, each a worker and a label shard."""
    candidates = min(data.labels, batch * (LISTED + data.labels_per_document) + 2048)
    own = candidates / workers
    products = 2 * batch * own * D * (2 / BF16 + 1 / FP32) + PASSES * 4 * batch * own / MEMORY
    # The rows' optimizer state is read and written; scores are counted above.
    rows = own * D * 2 * 4 / MEMORY
    others = (workers - 1) / workers
    sent = batch * D * (2 + 4 + 2 * 4 / workers) * others + 2 * 4 * D * D * others
    depth = max(1.0, (workers - 1).bit_length())
    talk = sent / NETWORK + COLLECTIVES * LATENCY * depth
    host = HOST * batch
    step = max(products + rows + LAUNCHES + talk, host)
    steps = data.documents / batch
    pairs = data.documents * data.labels_per_document
    answers = data.documents * LISTED * 8 * workers
    return {
        "step, ms": 1e3 * step,
        "of it batch building, ms": 1e3 * host,
        "of it exchange, ms": 1e3 * talk,
        "epoch, s": step * steps,
        "search, s": 2 * data.documents * data.labels * D / (BF16 * workers),
        "answers merged, s": answers / 8 / workers * MERGE + answers / workers / NETWORK,
        "sparse channel, s": LEXICAL * pairs,
        "MB sent a step": sent / 1e6,
        "GB of answers": answers / 1e9,
        "GB a card": data.labels / workers * D * (4 + 2 + 2) / 1e9,
    }


def main() -> None:
    for data in SETS:
        print(f"\n{data.name}\n")
        columns = [(workers, batch) for workers, batch in ((8, 2048), (64, 4096), (512, 8192))]
        rows = [row(data, *one) for one in columns]
        print("| | " + " | ".join(f"{w} GPUs, batch {b:,}" for w, b in columns) + " |")
        print("|---|" + "---:|" * len(columns))
        for name in rows[0]:
            print(f"| {name} | " + " | ".join(f"{one[name]:,.2f}" for one in rows) + " |")


if __name__ == "__main__":
    main()
