"""How long a run will take: seconds measured on this machine, by the run's own code, and scaled up.

Every phase is tried on random data of the planned shapes: batches, candidates and dimensions are
the planned ones, documents and labels are a bounded sample. What is assumed:

* other nodes are as fast as this machine, and no process waits for the network
* a process computes with one thread here and with its share of the CPUs in the run, which makes
  it faster in proportion
* sample documents are as long as the planned ones on average
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ray_xml import partition
from ray_xml.batches import BatchMaker
from ray_xml.checkpoint import save_part
from ray_xml.classifier import Classifier
from ray_xml.encoder import Encoder
from ray_xml.exchange import Exchange
from ray_xml.lexical_file import load_lexical, save_lexical
from ray_xml.plan import Plan
from ray_xml.refresh import BLOCK
from ray_xml.shortlist import LabelIndex
from ray_xml.sparse import Csr
from ray_xml.token_table import token_table

_LABELS = 50_000  # labels of a trial shard
_DOCUMENTS = 4096  # documents of the sample
_FEATURES = 50_000  # features of the sample
_STEPS = 3


@dataclass(frozen=True)
class Seconds:
    """Planned seconds.

    Attributes:
        phases: of each phase, all its repetitions in the run together.
        assumed: in words.
    """

    phases: dict[str, float]
    assumed: tuple[str, ...]

    @property
    def total(self) -> float:
        """Of the whole run, starting Ray left out."""
        return sum(self.phases.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        phases = {name: round(value, 2) for name, value in self.phases.items()}
        return {"phases": phases, "total": round(self.total, 2), "assumed": list(self.assumed)}


def describe_seconds(seconds: Seconds) -> str:
    """The seconds as text."""
    lines = [f"about {seconds.total:,.0f} s in all, starting Ray left out:"]
    lines += [f"    {name:<40} {value:>10,.1f} s" for name, value in seconds.phases.items()]
    return "\n".join([*lines, "assumed: " + "; ".join(seconds.assumed)])


def probe(made: Plan, *, seed: int = 0) -> Seconds:
    """Tries every phase of ``made`` for some seconds, with one thread, and scales it up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory(prefix="ray-xml-plan-") as folder:
            return _Probe(made, Path(folder), seed).seconds()
    finally:
        torch.set_num_threads(threads)


class _Probe:
    def __init__(self, made: Plan, folder: Path, seed: int) -> None:
        self.made, self.folder = made, folder
        self.config, self.counts = made.config, made.counts
        self.random = np.random.default_rng([seed, 0x9E0B])
        self.documents = min(self.counts.documents, _DOCUMENTS)
        self.labels = min(self.counts.labels, _LABELS)
        self.width = min(self.counts.features, _FEATURES)
        self.features = self._rows(self.width, self.counts.per_document, values=True)
        per_document = self.counts.pairs / self.counts.documents
        self.truth = self._rows(self.labels, per_document, values=False)
        resources = self.config.resources
        cpus = made.nodes.count * made.nodes.cpus
        self.worker_threads = max(1, int(resources.cpus_per_worker or cpus // resources.workers))
        self.shard_threads = max(1, cpus // resources.label_shards)

    def _rows(self, columns: int, mean: float, *, values: bool) -> Csr:
        """Random rows of the sample, about ``mean`` distinct columns each."""
        wanted = max(1, min(round(mean), columns))
        ids = [np.unique(self.random.integers(columns, size=wanted)) for _ in range(self.documents)]
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
        flat = np.concatenate(ids).astype(np.int32)
        numbers = self.random.random(len(flat), np.float32) + np.float32(0.1)
        return Csr(offsets, flat, numbers if values else None, columns)

    def seconds(self) -> Seconds:
        config, counts, sent = self.config, self.counts, self.made.traffic
        workers, shards = config.resources.workers, config.resources.label_shards
        held = config.training.validation
        fitted = counts.documents * (1 - held)
        encoder, table = self._encoder()
        by_document = fitted / self.documents
        encode = _timed(lambda: encoder.encode(self.features.slice(0, min(BLOCK, self.documents))))
        encode *= fitted / min(BLOCK, self.documents) / workers / self.worker_threads
        proxies, build, search = self._shard()
        active = np.count_nonzero(counts.label_counts) / shards
        scale = active / self.labels
        searched = fitted * search / self.shard_threads * max(1.0, scale)
        validate = searched * held / max(1 - held, 1e-9)
        lexical, ask = self._lexical()
        phases = {
            "token table": table,
            "making the sparse channel": lexical * by_document,
            "encoding": sent.refreshes * encode,
            "proxies": sent.refreshes * proxies * counts.pairs / shards / self.shard_threads,
            "index": sent.refreshes * build * scale / self.shard_threads,
            "shortlists": sent.cycles * searched,
            "training steps": config.training.total * sent.steps * self._step(encoder),
            "validation": sent.refreshes * (validate + ask * counts.documents * held / workers),
            "checkpoints": config.training.total * self._checkpoint(),
        }
        return Seconds(
            phases,
            (
                "all nodes as fast as this machine, and waiting for no network",
                f"{self.worker_threads} threads of a worker and {self.shard_threads} of a label "
                "shard, as many times faster than one",
                f"measured on {self.documents:,} documents and {self.labels:,} labels",
            ),
        )

    def _encoder(self) -> tuple[Encoder, float]:
        """A worker's encoder over the sample's features, and seconds for the whole token table."""
        config, exchange = self.config.encoder, Exchange()
        source = "svd" if config.tokens == "svd" else "random"
        sample = self.features.slice(0, min(1024, self.documents))
        made: list[torch.Tensor] = []
        took = _timed(
            lambda: made.append(token_table(source, sample, config.dim, exchange, seed=0)), 1
        )
        took *= self.counts.features / self.width
        if source == "svd":
            took += took * self.counts.documents / sample.num_rows / 20
        return Encoder(config, made[0], exchange, seed=0), took

    def _step(self, encoder: Encoder) -> float:
        """Seconds a step of one worker, its candidates and its share of the columns included."""
        config, workers = self.config, self.config.resources.workers
        size = config.training.batch
        count = min(self.labels, max(1, self.made.candidates // workers))
        classifier = Classifier(
            (0, self.labels),
            config.encoder.dim,
            self.truth.column_counts(),
            self.documents,
            torch.device("cpu"),
            config.classifier,
        )
        maker = BatchMaker(
            self.features, self.truth, (0, self.labels), 1, "union", torch.device("cpu"), 0, count
        )
        order = partition.epoch_order(self.documents, seed=0, epoch=0)
        batches = [
            maker.make(np.resize(order[i * size :], size), None, (0, i)) for i in range(_STEPS + 1)
        ]

        def one(number: int) -> tuple[float, float]:
            batch = batches[number]
            began = time.perf_counter()
            z, u = encoder.forward(batch.tokens, 0)
            middle = time.perf_counter()
            _, gradient = classifier.step(
                z.detach().to(classifier.product_type), batch.candidates, batch.documents, 0.01
            )
            after = time.perf_counter()
            encoder.backward(batch.tokens, z, u, gradient, 0.01)
            return middle - began + time.perf_counter() - after, after - middle

        one(0)
        took = np.min([one(number) for number in range(1, _STEPS + 1)], axis=0)
        # The encoder's part is shared by the workers, the candidates were a worker's already.
        return float(took[0] / workers + took[1]) / self.worker_threads

    def _shard(self) -> tuple[float, float, float]:
        """Seconds: for a pair in fitting proxies, to index the trial labels, for a search."""
        dim, shortlist = self.config.encoder.dim, self.config.shortlist
        z = self.random.standard_normal((min(self.labels, 8192), dim), np.float32)
        weights = torch.from_numpy(z).double()
        passes = self.config.proxy.passes if self.config.proxy.solver == "irls" else 1
        pair = passes * _timed(lambda: weights.t() @ weights) * 2 / len(z)
        vectors = self.random.standard_normal((self.labels, dim), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        shards = self.config.resources.label_shards
        kind = shortlist.kind(max(1, self.counts.labels // shards), False)
        settings = shortlist.model_copy(update={"index": kind})
        kept = vectors.astype(shortlist.dtype(self.counts.labels))
        made: list[LabelIndex] = []
        numbers = np.arange(self.labels, dtype=np.int32)
        build = _timed(lambda: made.append(LabelIndex(numbers, kept, settings)), 1)
        queries = z[:256]
        if not shortlist.width:
            return pair, 0.0, 0.0
        search = _timed(lambda: made[0].search(queries, shortlist.listed)) / len(queries)
        return pair, build * len(shortlist.sources), search * len(shortlist.sources)

    def _lexical(self) -> tuple[float, float]:
        """Seconds: to make the sparse channel of the sample, and to ask it about a document."""
        neighbors, path = self.config.neighbors, self.folder / "sparse.safetensors"
        build = _timed(lambda: save_lexical(path, neighbors, self.features, self.truth), 1)
        channel = load_lexical(path, neighbors)
        some = self.features.slice(0, min(256, self.documents))
        return build, _timed(lambda: channel.ask(some)) / some.num_rows

    def _checkpoint(self) -> float:
        """Seconds to write a worker's share of a checkpoint."""
        part = torch.zeros(16 * 2**20, dtype=torch.float32)
        took = _timed(lambda: save_part(self.folder, "trial", 0, (0, 1), {"part": part}), 1)
        dim, config = self.config.encoder.dim, self.config.classifier
        labels = self.counts.labels // self.config.resources.workers
        size = config.weight_bytes(labels, dim) + config.moment_bytes(labels, dim)
        size += 12 * self.counts.features * dim // self.config.resources.workers
        return took * size / part.nbytes


def _timed(work: Callable[[], object], times: int = 2) -> float:
    """The least seconds that ``work`` took."""
    least = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - began)
    return least
