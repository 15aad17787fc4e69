"""What the workers of a run send each other, by the shapes of ``exchange`` and ``training``.

A step's part is exact: it counts as ``Exchange.bytes_sent`` does. A cycle's part is of the size of
what is sent, without Ray's own messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from ray_xml.partition import even
from ray_xml.plan_counts import Counts
from ray_xml.refresh import BLOCK
from ray_xml.run_config import RunConfig
from ray_xml.shortlists import stretch_of

_LOSSES = 16  # steps from one summing of losses to the next (``training``)


@dataclass(frozen=True)
class Traffic:
    """Bytes of one worker.

    Attributes:
        steps: of an epoch.
        cycles: times that shortlists are made.
        refreshes: times that proxies are fitted.
        step: sent a step, on average over an epoch, by the worker that sends most.
        step_first: likewise, in a cycle's first epoch, in which shortlists are gathered.
        cycle: by what is sent: over the group in a refresh, all workers and shards together.
    """

    steps: int
    cycles: int
    refreshes: int
    step: float
    step_first: float
    cycle: dict[str, int]


def traffic(config: RunConfig, counts: Counts, product: int, rank: int = 0) -> Traffic:
    """What a run sends.

    Args:
        config: resolved.
        counts: of the documents that are fitted, none held out.
        product: bytes of a number of the products' type: embeddings are gathered in it.
        rank: whose steps are counted.
    """
    size, dim, batch = config.resources.workers, config.encoder.dim, config.training.batch
    documents, settings = counts.documents, config.training
    lists = config.classifier.uses_shortlists(counts.labels)
    steps = -(-documents // batch)
    low, high = even(dim, size)[rank]
    own = high - low
    sent = 0
    for start in range(0, documents, batch):
        rows = -(-min(batch, documents - start) // size)
        sent += rows * own * (size - 1) * 4  # columns to rows
        sent += rows * dim * (size - 1) * product  # gathered embeddings
        sent += size * rows * dim * (size - 1) // size * 4  # their gradients
        sent += rows * (dim - own) * 4  # rows to columns
    summed = 2 * (size - 1)
    sent += steps * (summed * (dim * dim + dim) // size * 4)  # the residual block's gradient
    sent += -(-steps // _LOSSES) * (summed // size * 4) + summed * steps // size * 4
    gathered = 0
    if lists:
        length = stretch_of(batch)
        for start in range(0, documents, length):
            rows = -(-min(length, documents - start) // size)
            gathered += rows * config.shortlist.width * (size - 1) * 4
    cycles = -(-settings.total // settings.cycle_epochs)
    return Traffic(
        steps,
        cycles if lists else 0,
        cycles + 1 if lists else cycles,
        sent / steps,
        (sent + gathered) / steps,
        _cycle(config, counts, lists),
    )


def _cycle(config: RunConfig, counts: Counts, lists: bool) -> dict[str, int]:
    dim, size, shards = config.encoder.dim, config.resources.workers, config.resources.label_shards
    item = config.shortlist.dtype(counts.labels).itemsize
    held = round(counts.documents * config.training.validation / (1 - config.training.validation))
    fitted = min(1.0, config.proxy.labels / max(1, int((counts.label_counts > 0).sum())))
    if config.proxy.solver == "irls":
        sums = config.proxy.passes * (dim + 1) * (3 * dim + 1)
    else:  # the map to every shard, its gradient back, for each batch of pairs
        batches = max(1, round(fitted * counts.pairs / config.proxy.batch_size))
        sums = config.proxy.epochs * batches * 2 * dim * (dim + 1)
    voted = config.neighbors.labels if config.neighbors.size else 0
    listed = config.shortlist.width
    encoded = -(-counts.documents // (BLOCK * size)) + -(-held // (BLOCK * size))
    return {
        "columns for rows, encoding": encoded * size * BLOCK * dim * (size - 1) * 4,
        "embeddings, to a file": 2 * counts.documents * dim,
        "classifier rows, to a file": counts.labels * (dim + 1) * item,
        "sums that fit the proxies": 8 * shards * sums,
        "shortlists from label shards": shards * counts.documents * listed * 12 if lists else 0,
        "validation's searches": shards * held * (2 * dim + 4 * voted + 12 * (listed + voted)),
    }
