"""What every process of a run holds, part by part.

Each number is that of the code that makes the part: sizes of tables come from the modules that own
them, scratch from the largest blocks that they work on. The bases were measured, see below.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ray_xml import partition, token_table
from ray_xml.batches import draws
from ray_xml.blend import NAMES
from ray_xml.coarse_search import beside_bytes, training_bytes
from ray_xml.lexical_file import build_bytes, file_bytes
from ray_xml.plan_counts import Counts
from ray_xml.plan_parts import CYCLE, PHASES, RUN, WORK, Kind, Process
from ray_xml.refresh import BLOCK, FITTED_TO, block_of_rows
from ray_xml.run_config import RunConfig
from ray_xml.shortlists import stretch_of

MIB = 2**20

# What processes take before they hold anything of a run's: proportional set sizes (pages of
# libraries are shared). Workers and shards: the run "tiny" of benchmarks/plan_check.py (1,000
# documents, 400 labels, 64 dimensions), less the few MiB of its parts. The others: the run
# "small", at the moment of its peak. Linux x86-64, Python 3.11, torch 2.13 for CPUs, Ray 2.60,
# FAISS 1.15.
DRIVER = 340 * MIB
HEAD = 365 * MIB  # GCS 40, dashboard and its helpers 275, monitor 46
NODE = 188 * MIB  # raylet 21, its agents 124, log monitor 43
IDLE = 110 * MIB  # a worker of Ray's that waits; there is one a CPU, until it is given something
CONTROLLER = 247 * MIB  # Ray Train's
TRAIN = 5 * 112 * MIB  # Ray Train's five other actors: placement, data, scaling, signals
WORKER = 316 * MIB
SHARD = 250 * MIB
EVALUATE = 290 * MIB

_SHARD_BLOCK = 16384  # labels mapped or widened at a time in a shard
_PIECE = 262_144  # labels of one part of the proxies' checkpoint


def expected_candidates(config: RunConfig, counts: Counts) -> np.ndarray:
    """float64 [L]: how likely each label is among the candidates of a batch.

    Documents' labels are taken to meet at random, and shortlists to name labels evenly: real ones
    overlap more, so that this is the larger number.
    """
    settings, batch, labels = config.classifier, config.training.batch, counts.labels
    missed = np.log1p(-np.minimum(counts.label_counts / counts.documents, 1 - 1e-9)) * batch
    if settings.uses_shortlists(labels):
        active = int(np.count_nonzero(counts.label_counts))
        listed = batch * config.shortlist.width
        missed = missed - (counts.label_counts > 0) * (listed / max(active, 1))
    drawn = 0 if settings.negatives == "shortlist" else settings.drawn
    if settings.candidates is not None and settings.negatives != "shortlist":
        there = int(-np.expm1(missed).sum())
        drawn = max(drawn, draws(settings.candidates, min(there, labels - 1), labels))
    if drawn >= labels:
        return np.ones(labels)
    return np.asarray(-np.expm1(missed - drawn / labels))


def driver() -> Process:
    """The command itself."""
    one = Process("driver", 0)
    one.add("interpreter and libraries", DRIVER, RUN)
    return one


def ray_processes(node: int, cpus: int, busy: int) -> Process:
    """Ray's own on a node. It starts a process a CPU, of which ``busy`` work for the run."""
    one = Process("Ray", node)
    one.add("raylet and agents", NODE, RUN)
    busy += 6 if node == 0 else 0  # the actors of Train
    one.add("idle workers", IDLE * max(0, cpus - busy), RUN)
    if node == 0:
        one.add("head: GCS, dashboard, monitor", HEAD, RUN)
        one.add("Train's controller", CONTROLLER, RUN[1:])
        one.add("Train's other actors", TRAIN, RUN[1:])
    return one


def worker(
    config: RunConfig,
    counts: Counts,
    rank: int,
    node: int,
    likely: np.ndarray,
    product: torch.dtype,
) -> Process:
    """A training worker.

    Args:
        config: resolved.
        counts: of the documents that are fitted.
        likely: from ``expected_candidates``.
        product: the products' type.
    """
    size, dim, batch = config.resources.workers, config.encoder.dim, config.training.batch
    on_gpu = config.resources.gpus_per_worker > 0
    kind: Kind = "gpu" if on_gpu else "memory"
    one = Process(f"worker {rank}", node, config.resources.gpus_per_worker)
    low, high = partition.even(dim, size)[rank]
    first, last = partition.label_ranges(counts.label_counts, size)[rank]
    columns, rows, labels = high - low, last - first, counts.labels
    held = _held(config, counts)
    one.add("interpreter and libraries", WORKER, RUN[1:])
    one.add("numbers of documents and labels", 16 * counts.documents + 40 * labels, RUN[1:])
    one.add("token table", 4 * counts.features * columns, RUN[1:], kind)
    one.add("token table: Adam", 8 * counts.features * columns, WORK, kind)
    scratch = token_table.scratch_bytes(config.encoder.tokens, counts.features, dim, size)
    one.add("making the token table", scratch, ("token table",), kind)
    one.add("residual block with Adam", 12 * (dim * dim + dim), WORK, kind)
    settings = config.classifier
    one.add("classifier rows", settings.weight_bytes(rows, dim), WORK, kind)
    one.add("classifier rows: optimizer", settings.moment_bytes(rows, dim), WORK, kind)
    postings = cut_entries(config, counts)
    if rank == 0:
        built = build_bytes(counts.documents, counts.entries, postings, counts.pairs)
        one.add("making the sparse channel", built, ("sparse channel",))
    one.add("sparse channel: offsets", 4 * (counts.features + labels), CYCLE)
    candidates = math.ceil(float(likely[first:last].sum()))
    step = settings.step_bytes(batch, candidates, dim, product)
    one.add("a step: candidates' rows and scores", step, ("train",), kind)
    if not on_gpu:
        # Freed blocks and the next batch between two calls of heap.give_back: as much again.
        one.add("a step: what the heap keeps", step, ("train",))
    one.add(
        "a step: bags and gradients of tokens", _tokens(config, counts, columns), ("train",), kind
    )
    if settings.uses_shortlists(labels):
        share = stretch_of(batch) // size * config.shortlist.width * 12
        one.add("shortlists under way", 5 * share * (1 + config.resources.label_shards), ("train",))
    one.add("encoding a block", _encoding(counts, dim, size), ("proxies", "validate"), kind)
    item = config.shortlist.dtype(labels).itemsize
    one.add("a block of rows to write", 3 * block_of_rows(rows, dim, item), ("rows",))
    one.add("held-out documents' evidence", _evidence(config, held, size), ("validate",))
    _files(one, config, counts, postings, RUN[1:])
    return one


def shard(config: RunConfig, counts: Counts, number: int, node: int) -> Process:
    """A label shard; arguments as of ``worker``."""
    one = Process(f"label shard {number}", node, config.resources.gpus_per_shard)
    dim, parts = config.encoder.dim, config.resources.label_shards
    low, high = partition.label_ranges(counts.label_counts, parts)[number]
    own = counts.label_counts[low:high]
    pairs, active = int(own.sum()), int(np.count_nonzero(own))
    shortlist = config.shortlist
    item = shortlist.dtype(active).itemsize
    on_gpu = config.resources.gpus_per_shard > 0
    one.add("interpreter and libraries", SHARD, RUN)
    one.add("its labels' documents", 4 * pairs + 16 * active, RUN)
    all_active = max(1, int(np.count_nonzero(counts.label_counts)))
    share = min(1.0, config.proxy.labels / all_active)
    if share < 1:  # else they are the same
        one.add("those that proxies are fitted to", share * (4 * pairs + 16 * active), RUN)
    # The columns as they are taken, with ones, by rows and turned.
    one.add("turning labels and documents", 20 * pairs + 16 * counts.labels, ("shards start",))
    one.add("centroids, then proxies", active * dim * item, CYCLE)
    # Every run ends with a refresh that scores by classifier rows.
    one.add("classifier rows", active * (dim + 1) * item, CYCLE)
    searched = ("proxy", "classifier") if shortlist.source == "both" else (shortlist.source,)
    trained = 0
    for source, width in (("proxy", dim), ("classifier", dim + 1)):
        kind = shortlist.kind(active, on_gpu) if source in searched and shortlist.width else "flat"
        if kind != "flat":
            name = "proxies" if source == "proxy" else "rows"  # and the phase that makes it
            one.add(f"index over {name}", beside_bytes(active, width, kind), CYCLE)
            trained = training_bytes(active, width)
            if source == "classifier":
                one.add("training an index", trained, (name,))
        elif on_gpu:
            one.add(f"vectors of {source}", active * width * item, CYCLE, "gpu")
    one.add("labels' numbers", 20 * active, CYCLE)
    block = min(active, _SHARD_BLOCK) * dim * 4
    # One is over, and its memory given back, before the other begins.
    one.add("mapping centroids, or training an index", max(8 * block, trained), ("proxies",))
    one.add(
        "searching: blocks of vectors and queries",
        2 * block + 4 * BLOCK * dim * 4,
        ("validate", "train"),
    )
    one.add("a part of a checkpoint", min(_PIECE, high - low) * dim * item, ("checkpoint",))
    if on_gpu:
        one.add("documents' embeddings", 2 * counts.documents * dim, CYCLE, "gpu")
    one.add("embeddings' file", 2 * counts.documents * dim, CYCLE, "cache")
    one.add("data set", 4 * counts.pairs + 8 * counts.documents, RUN, "cache")
    one.add("rows' file", counts.labels * (dim + 1) * item, CYCLE[1:], "cache")
    return one


def evaluate(config: RunConfig, counts: Counts) -> Process:
    """``ray-xml evaluate``, by itself on the first node."""
    phases = (PHASES[-1],)
    one = Process("evaluate", 0)
    dim, active = config.encoder.dim, int(np.count_nonzero(counts.label_counts))
    item = config.shortlist.dtype(active).itemsize
    one.add("interpreter and libraries", EVALUATE, phases)
    one.add("token table", 4 * counts.features * dim, phases)
    one.add("proxies", active * dim * item, phases)
    one.add("classifier rows", active * (dim + 1) * item, phases)
    one.add("numbers of labels", 40 * counts.labels + 12 * active, phases)
    kind = config.shortlist.kind(active, False)
    if config.shortlist.width and kind != "flat":
        sources = len(config.shortlist.sources)
        one.add("index", sources * beside_bytes(active, dim, kind), phases)
        one.add("training an index", training_bytes(active, dim), phases)
    part = config.classifier.weight_bytes(counts.labels, dim) // config.resources.workers
    one.add("a part of the checkpoint as it is read", part, phases, "cache")
    one.add("a block of documents", _evidence(config, BLOCK // 2, 1), phases)
    _files(one, config, counts, cut_entries(config, counts), phases)
    return one


def cut_entries(config: RunConfig, counts: Counts) -> int:
    """Stored features of all documents once they are cut to ``neighbors.terms``."""
    if not config.neighbors.size:
        return 0
    words = max(counts.per_document - counts.dense, 0.0)
    return round(counts.documents * min(config.neighbors.terms, words))


def _files(
    one: Process, config: RunConfig, counts: Counts, postings: int, phases: tuple[str, ...]
) -> None:
    """Files that a worker or a predictor maps."""
    terms = config.neighbors.label_terms
    each = np.minimum(counts.label_counts * (postings / counts.documents), terms)
    size = file_bytes(
        counts.features, counts.documents, postings, int(each.sum()), counts.labels, counts.pairs
    )
    if config.neighbors.size and counts.dense == counts.features:
        size += 2 * counts.documents * counts.dense  # no words: the vectors are searched
    mapped = [phase for phase in phases if phase in (*CYCLE, "evaluate")]
    one.add("sparse channel's file", size, mapped, "cache")
    one.add("data set", counts.nbytes, phases, "cache")
    lists = config.classifier.uses_shortlists(counts.labels)
    if lists and config.training.cycle_epochs > 1 and "train" in phases:
        one.add(
            "shortlists' file", 4 * counts.documents * config.shortlist.width, ("train",), "cache"
        )


def _held(config: RunConfig, counts: Counts) -> int:
    share = config.training.validation
    return round(counts.documents * share / (1 - share))


def _tokens(config: RunConfig, counts: Counts, columns: int) -> int:
    """Bytes for the tokens of a batch: two batches of bags both ways, and one's gradient."""
    entries = round(config.training.batch * counts.per_document)
    distinct = min(counts.features, entries)
    dense = config.training.batch * config.encoder.dim
    return 2 * 2 * entries * 12 + 2 * distinct * columns * 4 + 8 * dense * 4


def _encoding(counts: Counts, dim: int, size: int) -> int:
    """Bytes for one block of every worker: bags, columns of all, rows of its own."""
    documents = min(BLOCK * size, counts.documents)
    return round(documents * counts.per_document) * 20 + 4 * (2 * documents * dim + 3 * BLOCK * dim)


def _evidence(config: RunConfig, documents: int, size: int) -> int:
    """Bytes of candidates' features: all of a worker's documents, again those of the documents
    that the score is fitted to, and one block with all that its features are made of."""
    share = -(-documents // size)
    voted = config.neighbors.labels if config.neighbors.size else 0
    each = (config.shortlist.width + voted) * 4 * len(NAMES)
    every = max(1, -(-documents // FITTED_TO))
    return each * (share + share // every + 3 * min(share, BLOCK))
