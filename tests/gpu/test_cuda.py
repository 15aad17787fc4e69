"""The pure core on a GPU gives what it gives on the CPU. Skipped where there is no GPU.

python -m pytest tests/gpu
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from made import begin_cycle

from ray_xml.bags import bags_of, sum_bags, transposed_bags
from ray_xml.classifier import Candidates, Classifier, ClassifierConfig
from ray_xml.encoder import Encoder, EncoderConfig, TokenBatch
from ray_xml.exchange import Exchange
from ray_xml.hashing import dropout_factors
from ray_xml.label_range import LabelRange
from ray_xml.lean_adam import LeanAdam, Second
from ray_xml.proxies import identity_map
from ray_xml.ranges import LocalRanges
from ray_xml.row_adam import RowAdam
from ray_xml.sparse import Csr

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DOCUMENTS, TOKENS, LABELS, DIM = 96, 500, 64, 48


def _rows(columns: int, each: int, *, values: bool, seed: int) -> Csr:
    random = np.random.default_rng(seed)
    rows = [sorted(random.choice(columns, each, replace=False).tolist()) for _ in range(DOCUMENTS)]
    numbers = random.random((DOCUMENTS, each)).astype(np.float32).tolist() if values else None
    return Csr.from_lists(rows, columns, numbers)


FEATURES = _rows(TOKENS, 12, values=True, seed=0)
TRUTH = _rows(LABELS, 3, values=False, seed=1)


def test_bags_forwards_and_transposed() -> None:
    table = torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(0))
    bags = bags_of(FEATURES)
    there = sum_bags(table.to(CUDA), bags.to(CUDA))
    torch.testing.assert_close(there.cpu(), sum_bags(table, bags))
    _, turned = transposed_bags(FEATURES)
    back = sum_bags(there, turned.to(CUDA))
    torch.testing.assert_close(back.cpu(), sum_bags(there.cpu(), turned), rtol=1e-4, atol=1e-4)


def test_dropout_masks_are_the_same_numbers() -> None:
    documents = torch.arange(1000)
    here = dropout_factors(7, documents, DIM, 0.3)
    assert torch.equal(dropout_factors(7, documents.to(CUDA), DIM, 0.3).cpu(), here)


def test_row_adam() -> None:
    tables = []
    for device in (CPU, CUDA):
        generator = torch.Generator().manual_seed(0)
        table = torch.randn(TOKENS, DIM, generator=generator).to(device)
        adam = RowAdam(table)
        for step in range(5):
            rows = torch.arange(step, TOKENS, 3)
            gradient = torch.randn(len(rows), DIM, generator=generator)
            adam.step(rows.to(device), gradient.to(device), 0.01)
        tables.append(table.cpu())
    torch.testing.assert_close(tables[1], tables[0])


@pytest.mark.parametrize("kind", ["element", "row", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lean_adam(kind: Second, dtype: torch.dtype) -> None:
    found = []
    for device in (CPU, CUDA):
        generator = torch.Generator().manual_seed(0)
        table = torch.randn(TOKENS, DIM, generator=generator).to(device, dtype)
        adam = LeanAdam(table, kind, seed=1)
        for step in range(5):
            rows = torch.arange(step, TOKENS, 3)
            gradient = torch.randn(len(rows), DIM, generator=generator)
            adam.step(rows.to(device), gradient.to(device), 0.01)
        found.append([part.cpu() for part in (table, *adam.state().values())])
    # The same random bits on both; where a product is rounded otherwise, a weight may turn.
    for ours, theirs in zip(*found, strict=True):
        if dtype == torch.bfloat16:
            assert (ours != theirs).double().mean() < 0.01
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2, atol=1e-5)


LEAN = [("float32", "adam"), ("bfloat16", "adam_row"), ("bfloat16", "sgd")]


@pytest.mark.parametrize(("storage", "optimizer"), LEAN)
@pytest.mark.parametrize("negatives", ["union", "shortlist"])
def test_steps_of_encoder_and_classifier(negatives: str, storage: str, optimizer: str) -> None:
    losses: dict[torch.device, list[float]] = {}
    for device in (CPU, CUDA):
        table = torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(0)) * 0.2
        encoder = Encoder(EncoderConfig(dim=DIM), table.to(device), Exchange(), seed=0)
        counts = TRUTH.column_counts()
        config = ClassifierConfig.model_validate(
            {"precision": "float32", "storage": storage, "optimizer": optimizer, "sgd_rate": 50.0}
        )
        classifier = Classifier((0, LABELS), DIM, counts, DOCUMENTS, device, config)
        shortlist = np.random.default_rng(2).integers(0, LABELS, (DOCUMENTS, 10), dtype=np.int32)
        shortlist.sort(1)
        tokens = TokenBatch.build(torch.arange(DOCUMENTS), FEATURES, device)
        chosen = Candidates.build(
            shortlist, TRUTH, (0, LABELS), device, negatives=negatives, documents=DOCUMENTS
        )
        losses[device] = []
        for epoch in range(10):
            z_bD, u_bD = encoder.forward(tokens, epoch)
            loss, gradient = classifier.step(z_bD.detach(), chosen, DOCUMENTS, 0.01)
            encoder.backward(tokens, z_bD, u_bD, gradient, 0.01)
            losses[device].append(float(loss))
    assert losses[CPU][-1] < losses[CPU][0]
    rtol = 1e-3 if storage == "float32" else 1e-2
    np.testing.assert_allclose(losses[CUDA], losses[CPU], rtol=rtol)


def test_label_range() -> None:
    random = np.random.default_rng(3)
    embeddings = random.standard_normal((DOCUMENTS, DIM)).astype(np.float16)
    sums = []
    for device in ("cpu", "cuda"):
        one = LabelRange((0, LABELS), TRUTH, device=device)
        begin_cycle(LocalRanges([one]), 0, embeddings)
        sums.append(one.pair_sums(identity_map(DIM)))
        one.set_proxies(identity_map(DIM))
        found = one.search(embeddings, 5, ("proxy",), both_scores=False)
        assert found.labels["proxy"].shape == (DOCUMENTS, 5)
    torch.testing.assert_close(sums[1].gram, sums[0].gram, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(sums[1].cross, sums[0].cross, rtol=1e-4, atol=1e-3)
    assert sums[1].loss == pytest.approx(sums[0].loss, rel=1e-4)


def test_exchange_over_nccl(tmp_path: Path) -> None:
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        exchange = Exchange()
        exchange.active = True  # one rank would skip the collectives
        x = torch.randn(8, DIM, device=CUDA)
        for result in (
            exchange.gather_rows(x),
            exchange.scatter_sum_rows(x),
            exchange.columns_to_rows(x, DIM),
            exchange.rows_to_columns(x),
            exchange.sum_(x.clone()),
        ):
            assert torch.equal(result, x)
        exchange.barrier()
    finally:
        dist.destroy_process_group()
