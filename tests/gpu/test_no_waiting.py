"""A training step never asks its device for a number: that would make the host wait for it.

Tensors on torch's meta device have shapes and no values, and take the way of a GPU's through the
code, so every such question is an error on them, with or without a GPU. Where there is one, it is
asked to report what waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ray_xml.batches import BatchMaker
from ray_xml.classifier import Classifier, ClassifierConfig
from ray_xml.encoder import Encoder, EncoderConfig
from ray_xml.exchange import Exchange
from ray_xml.sparse import Csr

BATCH, TOKENS, LABELS, DIM, LISTED = 8, 60, 40, 16, 5
COMBINATIONS = [
    (storage, optimizer)
    for storage in ("float32", "bfloat16")
    for optimizer in ("adam", "adam_row", "sgd")
]
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["meta", pytest.param("cuda", marks=NO_CUDA)]


def rows(columns: int, each: int, seed: int) -> Csr:
    random = np.random.default_rng(seed)
    ids = [sorted(random.choice(columns, each, replace=False).tolist()) for _ in range(BATCH)]
    return Csr.from_lists(ids, columns)


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """On CUDA, whatever makes the host wait for the device is an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("documents", [BATCH, BATCH - 3])
@pytest.mark.parametrize("negatives", ["union", "shortlist"])
@pytest.mark.parametrize(("storage", "optimizer"), COMBINATIONS)
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_and_its_batch(
    device: str, storage: str, optimizer: str, negatives: str, documents: int
) -> None:
    on = torch.device(device)
    sections = {"storage": storage, "optimizer": optimizer, "negatives": negatives}
    config = ClassifierConfig.model_validate({**sections, "precision": "bfloat16"})
    classifier = Classifier((0, LABELS), DIM, np.arange(LABELS), 100, on, config)
    table = torch.zeros(TOKENS, DIM, device=on)
    encoder = Encoder(EncoderConfig(dim=DIM), table, Exchange(), seed=0)
    maker = BatchMaker(
        rows(TOKENS, 6, seed=0), rows(LABELS, 2, seed=1), (0, LABELS), BATCH, negatives, on, 7
    )
    listed = np.random.default_rng(2).integers(LABELS, size=(documents, LISTED), dtype=np.int32)
    with without_waiting(on):
        batch = maker.make(np.arange(documents), listed, (0, 0))
        z_bD, u_bD = encoder.forward(batch.tokens, 0)
        low_BD = z_bD.detach().to(classifier.product_type)
        loss, gradient_BD = classifier.step(low_BD, batch.candidates, batch.documents, 0.01)
        encoder.backward(batch.tokens, z_bD, u_bD, gradient_BD, 0.01)
    assert loss.device.type == device
    assert gradient_BD.shape == (BATCH, DIM)


def test_the_meta_device_reports_a_question() -> None:
    loss = torch.zeros((), device="meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(loss)
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(3, device="meta")[torch.zeros(3, dtype=torch.bool, device="meta")]
