"""The whole training step on one device, as ``ray_xml.training`` takes it.

Encoder forwards, embeddings gathered, the classifier's step on positives, shortlists and drawn
labels with its optimizer, gradients scattered, encoder backwards with its optimizers. The exchange
goes through a process group of one rank, so that its collectives are part of the time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from gpu_clock import Peaks, begin_memory, median_seconds, peak_gib, synchronise
from gpu_counts import DRAWN, SHORTLIST, Combination, count
from gpu_data import features_of, labels_of

from ray_xml.batches import Batch, BatchMaker
from ray_xml.classifier import Classifier, ClassifierConfig, product_type
from ray_xml.encoder import Encoder, EncoderConfig
from ray_xml.exchange import Exchange
from ray_xml.synth_shapes import Statistics

COMBINATIONS = (("float32", "adam"), ("bfloat16", "adam_row"))
_RATE = 0.005


@contextmanager
def one_rank_group(device: torch.device) -> Iterator[Exchange]:
    """An exchange that runs its collectives although nobody else takes part."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/store",
            rank=0,
            world_size=1,
            device_id=device if device.type == "cuda" else None,
        )
        try:
            exchange = Exchange()
            exchange.active = True
            yield exchange
        finally:
            dist.destroy_process_group()


class Stepper:
    """An encoder and a classifier over all labels of a shape, and batches for them."""

    def __init__(
        self,
        shape: Statistics,
        how: tuple[str, str],
        exchange: Exchange,
        device: torch.device,
        *,
        dim: int,
        batch: int,
        batches: int,
    ) -> None:
        storage, optimizer = how
        random = np.random.default_rng(0)
        self.device, self.exchange, self.batch = device, exchange, batch
        self.drawn = min(DRAWN, shape.labels // 4)
        config = ClassifierConfig.model_validate({"storage": storage, "optimizer": optimizer})
        table = torch.randn(shape.features, dim, device=device) / dim**0.5
        self.encoder = Encoder(EncoderConfig(dim=dim), table, exchange, seed=0)
        counts, documents = np.ones(shape.labels), batch * batches
        self.classifier = Classifier((0, shape.labels), dim, counts, shape.train, device, config)
        self.maker = BatchMaker(
            features_of(shape, documents, seed=1),
            labels_of(shape, documents, seed=2),
            (0, shape.labels),
            1,
            "union",
            device,
            self.drawn,
        )
        width = min(SHORTLIST, shape.labels // 4)
        self.work = [
            (
                np.arange(first, first + batch),
                random.integers(shape.labels, size=(batch, width), dtype=np.int32),
            )
            for first in range(0, documents, batch)
        ]

    def make(self, number: int) -> Batch:
        documents, listed = self.work[number]
        return self.maker.make(documents, listed, (0, number))

    def step(self, batch: Batch) -> torch.Tensor:
        """``Training._step``."""
        encoder, classifier = self.encoder, self.classifier
        z_bD, u_bD = encoder.forward(batch.tokens, 0)
        z_BD = self.exchange.gather_rows(z_bD.detach().to(classifier.product_type))
        loss, gradient_BD = classifier.step(z_BD, batch.candidates, batch.documents, _RATE)
        gradient_bD = self.exchange.scatter_sum_rows(gradient_BD)
        encoder.backward(batch.tokens, z_bD, u_bD, gradient_bD, _RATE)
        return loss

    def loop_seconds(self) -> float:
        """A step's time as in an epoch, where a thread builds the batch ahead."""
        losses = [self.step(batch) for batch in self.maker.epoch(self.work, 0)]
        synchronise(self.device)
        began = time.perf_counter()
        losses = [self.step(batch) for batch in self.maker.epoch(self.work, 1)]
        synchronise(self.device)
        assert torch.stack(losses).isfinite().all(), "a loss is not finite"
        return (time.perf_counter() - began) / len(losses)


def measure(
    name: str, shape: Statistics, how: tuple[str, str], peaks: Peaks, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row a batch size."""
    device = options.device
    for batch in options.batch:
        begin_memory(device)
        row: dict[str, Any] = {
            "shape": name,
            "labels": shape.labels,
            "storage": how[0],
            "optimizer": how[1],
            "batch": batch,
        }
        try:
            with one_rank_group(device) as exchange:
                stepper = Stepper(
                    shape,
                    how,
                    exchange,
                    device,
                    dim=options.dim,
                    batch=batch,
                    batches=options.steps,
                )
                row |= _timed(stepper, how, peaks, options)
        except torch.OutOfMemoryError as error:
            row["failed"] = str(error).split(".")[0]
        yield row


def _timed(
    stepper: Stepper, how: tuple[str, str], peaks: Peaks, options: argparse.Namespace
) -> dict[str, Any]:
    device, built, ready = stepper.device, [], []
    for number in range(len(stepper.work)):
        began = time.perf_counter()
        ready.append(stepper.make(number))
        built.append(time.perf_counter() - began)

    def steps() -> None:
        for batch in ready:
            stepper.step(batch)

    seconds = median_seconds(steps, device, repeats=options.repeats) / len(ready)
    kind = product_type("auto", device)
    candidates = round(statistics.fmean(batch.candidates.count for batch in ready))
    counts = count(
        Combination(*how, kind),
        documents=stepper.batch,
        candidates=candidates,
        dim=options.dim,
        tokens=round(statistics.fmean(len(batch.tokens.tokens) for batch in ready)),
        occurrences=round(statistics.fmean(len(batch.tokens.forward.ids) for batch in ready)),
    )
    # The least time at the measured peaks, products and traffic each by themselves.
    products = counts.low / peaks.product_rate(kind) + counts.full / peaks.float32
    return {
        "candidates": candidates,
        "product": str(kind).removeprefix("torch."),
        "ms": 1000 * seconds,
        "loop_ms": 1000 * stepper.loop_seconds(),
        "build_ms": 1000 * statistics.median(built),
        "documents_per_second": stepper.batch / seconds,
        "flops": counts.flops,
        "flop_per_second": counts.flops / seconds,
        "of_product_peak": products / seconds,
        "bytes": counts.moved,
        "bytes_per_second": counts.moved / seconds,
        "of_memory_peak": counts.moved / peaks.memory / seconds,
        "peak_gib": peak_gib(device),
    }
