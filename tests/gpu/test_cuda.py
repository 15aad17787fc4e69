"""The pure core on a GPU gives what it gives on the CPU. Skipped where there is no GPU.

python -m pytest tests/gpu
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from made import begin_cycle, make_config, make_data_set

from ray_xml import lean_adam
from ray_xml.bags import bags_of, sum_bags, transposed_bags
from ray_xml.classifier import Candidates, Classifier, ClassifierConfig
from ray_xml.encoder import Encoder, EncoderConfig, TokenBatch
from ray_xml.exchange import Exchange
from ray_xml.hashing import dropout_factors
from ray_xml.label_range import LabelRange
from ray_xml.lean_adam import LeanAdam, Second
from ray_xml.proxies import ProxyConfig, fit, identity_map
from ray_xml.ranges import LocalRanges
from ray_xml.row_adam import RowAdam
from ray_xml.run_data import split_rows
from ray_xml.sparse import Csr
from ray_xml.training import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
DOCUMENTS, TOKENS, LABELS, DIM = 96, 500, 64, 48
STORAGES, OPTIMIZERS = ("float32", "bfloat16"), ("adam", "adam_row", "sgd")


def _rows(columns: int, each: int, *, values: bool, seed: int) -> Csr:
    random = np.random.default_rng(seed)
    rows = [sorted(random.choice(columns, each, replace=False).tolist()) for _ in range(DOCUMENTS)]
    numbers = random.random((DOCUMENTS, each)).astype(np.float32).tolist() if values else None
    return Csr.from_lists(rows, columns, numbers)


FEATURES = _rows(TOKENS, 12, values=True, seed=0)
TRUTH = _rows(LABELS, 3, values=False, seed=1)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _assert_nearly_all_equal(one: torch.Tensor, other: torch.Tensor) -> None:
    """bfloat16 tables whose float32 values differ in the last place may round apart, seldom."""
    one, other = one.float().cpu(), other.float().cpu()
    torch.testing.assert_close(one, other, rtol=2.0**-7, atol=1e-6)
    assert (one != other).float().mean() < 0.01


# ---- parts ---------------------------------------------------------------------------------------


def test_bags_forwards_and_transposed() -> None:
    table = _random(TOKENS, DIM)
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


@pytest.mark.parametrize("negatives", ["union", "shortlist"])
@pytest.mark.parametrize("documents", [DOCUMENTS, DOCUMENTS - 5])
def test_candidates_are_the_same_numbers(negatives: str, documents: int) -> None:
    here, there = (_candidates(device, negatives, documents) for device in (CPU, CUDA))
    for name in ("rows", "positives", "mask"):
        one, other = getattr(here, name), getattr(there, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert other.device == CUDA
            assert torch.equal(other.cpu(), one)


@pytest.mark.parametrize("all_rows", [False, True])
def test_row_adam(all_rows: bool) -> None:
    def make(table: torch.Tensor) -> RowAdam:
        return RowAdam(table)

    here, there = _after_updates(make, torch.float32, all_rows)
    torch.testing.assert_close(there.table.cpu(), here.table)
    torch.testing.assert_close(there.second.cpu(), here.second)


@pytest.mark.parametrize("all_rows", [False, True])
@pytest.mark.parametrize("second", ["element", "row", "none"])
@pytest.mark.parametrize("storage", STORAGES)
def test_lean_adam(storage: str, second: Second, all_rows: bool) -> None:
    def make(table: torch.Tensor) -> LeanAdam:
        return LeanAdam(table, second, first_row=1000, seed=3)

    here, there = _after_updates(make, getattr(torch, storage), all_rows)
    for name, part in {"table": here.table, **here.state()}.items():
        other = getattr(there, name).cpu()
        if part.dtype == torch.bfloat16:
            _assert_nearly_all_equal(other, part)
        else:
            torch.testing.assert_close(other, part)
    assert there.steps.device == CPU


def _after_updates(
    make: Callable[[torch.Tensor], RowAdam | LeanAdam], kind: torch.dtype, all_rows: bool
) -> list[RowAdam | LeanAdam]:
    """An optimizer on the CPU and one on the GPU after the same updates."""
    made = []
    for device in (CPU, CUDA):
        adam = make(_random(TOKENS, DIM).to(kind).to(device))
        for step in range(5):
            rows = None if all_rows else torch.arange(step, TOKENS, 3)
            gradient = _random(TOKENS if rows is None else len(rows), DIM, seed=step)
            adam.step(None if rows is None else rows.to(device), gradient.to(device), 0.01)
        made.append(adam)
    return made


def test_stochastic_rounding_gives_the_same_bits() -> None:
    values = _random(TOKENS, DIM) * torch.logspace(-20, 20, DIM)
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.integers(65536, size=values.shape, dtype=np.int32))
    rows = torch.from_numpy(random.permutation(TOKENS))
    tables = []
    for device in (CPU, CUDA):
        table = torch.zeros(TOKENS, DIM, dtype=torch.bfloat16, device=device)
        lean_adam._put(table, rows.to(device), values.clone().to(device), noise.to(device))
        tables.append(table.view(torch.int16).cpu())
    assert torch.equal(tables[1], tables[0])


def test_the_rows_of_random_bits_are_the_same() -> None:
    here, there = (
        LeanAdam(torch.zeros(TOKENS, DIM, dtype=torch.bfloat16, device=device), "row", seed=5)
        for device in (CPU, CUDA)
    )
    pattern = torch.arange(100)
    assert torch.equal(there._noise(pattern.to(CUDA)).cpu(), here._noise(pattern))


# ---- steps ---------------------------------------------------------------------------------------


def _candidates(device: torch.device, negatives: str, documents: int = DOCUMENTS) -> Candidates:
    shortlist = np.random.default_rng(2).integers(0, LABELS, (DOCUMENTS, 10), dtype=np.int32)
    shortlist[documents:] = -1
    rows = TRUTH.slice(0, documents).padded(DOCUMENTS)
    return Candidates.build(
        shortlist, rows, (0, LABELS), device, negatives=negatives, documents=documents
    )


def test_encoder_steps() -> None:
    encoders = []
    for device in (CPU, CUDA):
        table = _random(TOKENS, DIM) * 0.2
        encoder = Encoder(EncoderConfig(dim=DIM), table.to(device), Exchange(), seed=0)
        tokens = TokenBatch.build(torch.arange(DOCUMENTS), FEATURES, device)
        for epoch in range(5):
            z_bD, u_bD = encoder.forward(tokens, epoch)
            gradient = _random(DOCUMENTS, DIM, seed=epoch).to(device)
            encoder.backward(tokens, z_bD, u_bD, gradient, 0.001)
        encoders.append(encoder)
    here, there = encoders
    for name in ("table", "weight", "bias", "power"):
        one, other = getattr(here, name).detach(), getattr(there, name).detach()
        torch.testing.assert_close(other.cpu(), one, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        there.encode(FEATURES).detach().cpu(), here.encode(FEATURES).detach(), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("negatives", ["union", "shortlist"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("storage", STORAGES)
def test_classifier_step(storage: str, optimizer: str, negatives: str, precision: str) -> None:
    sections = {"storage": storage, "optimizer": optimizer, "precision": precision}
    config = ClassifierConfig.model_validate({**sections, "sgd_rate": 10.0})
    results = []
    for device in (CPU, CUDA):
        classifier = Classifier((0, LABELS), DIM, TRUTH.column_counts(), DOCUMENTS, device, config)
        classifier.weight.copy_(_random(LABELS, DIM, seed=4) * 0.3)
        chosen = _candidates(device, negatives, DOCUMENTS - 5)
        z_BD = _random(DOCUMENTS, DIM, seed=5).to(device)
        loss, gradient = classifier.step(z_BD, chosen, DOCUMENTS - 5, 0.01)
        results.append((loss.cpu(), gradient.cpu(), classifier.bias.cpu(), classifier.weight.cpu()))
    # Logits are rounded to bfloat16 behind a product of that type: one in the last place is 2^-8.
    near = {"rtol": 1e-4, "atol": 1e-5} if precision == "float32" else {"rtol": 0.02, "atol": 0.01}
    here, there = results
    for one, other in zip(here[:3], there[:3], strict=True):
        torch.testing.assert_close(other, one, **near)
    # Adam's first step is the rate for every weight, whatever its gradient's size: a gradient near
    # zero may go either way.
    moved = (there[3].float() - here[3].float()).abs()
    assert moved.max() <= 0.02 + 2.0**-6
    assert (moved > 2.0**-7).float().mean() < 0.01


@pytest.mark.parametrize("negatives", ["union", "shortlist"])
@pytest.mark.parametrize("storage", STORAGES)
def test_steps_of_encoder_and_classifier(negatives: str, storage: str) -> None:
    optimizer = "adam" if storage == "float32" else "adam_row"
    sections = {"storage": storage, "optimizer": optimizer, "precision": "float32"}
    config = ClassifierConfig.model_validate(sections)
    losses: dict[torch.device, list[float]] = {}
    for device in (CPU, CUDA):
        table = _random(TOKENS, DIM) * 0.2
        encoder = Encoder(EncoderConfig(dim=DIM), table.to(device), Exchange(), seed=0)
        counts = TRUTH.column_counts()
        classifier = Classifier((0, LABELS), DIM, counts, DOCUMENTS, device, config)
        tokens = TokenBatch.build(torch.arange(DOCUMENTS), FEATURES, device)
        chosen = _candidates(device, negatives)
        losses[device] = []
        for epoch in range(10):
            z_bD, u_bD = encoder.forward(tokens, epoch)
            loss, gradient = classifier.step(z_bD.detach(), chosen, DOCUMENTS, 0.01)
            encoder.backward(tokens, z_bD, u_bD, gradient, 0.01)
            losses[device].append(float(loss))
    assert losses[CPU][-1] < losses[CPU][0]
    np.testing.assert_allclose(
        losses[CUDA], losses[CPU], rtol=1e-3 if storage == "float32" else 0.01
    )


# ---- proxies, exchange, training -----------------------------------------------------------------


def test_label_range() -> None:
    embeddings = np.random.default_rng(3).standard_normal((DOCUMENTS, DIM)).astype(np.float16)
    fits, gradients, answers = [], [], []
    for device in ("cpu", "cuda"):
        one = LabelRange((0, LABELS), TRUTH, device=device)
        cycle = begin_cycle(LocalRanges([one]), 0, embeddings)
        gradients.append(one.pair_gradient(identity_map(DIM), 1, 0, 2))
        fits.append(fit(one, ProxyConfig(passes=3), DIM, seed=0))
        cycle.set_proxies(fits[0][0])
        answers.append(one.search(embeddings, 5, ("proxy",), both_scores=False))
    assert gradients[1][1] == gradients[0][1]
    torch.testing.assert_close(gradients[1][0], gradients[0][0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(fits[1][0], fits[0][0], rtol=1e-3, atol=1e-3)
    assert fits[1][1] == pytest.approx(fits[0][1], rel=1e-4)
    here, there = answers
    np.testing.assert_allclose(there.cosines["proxy"], here.cosines["proxy"], atol=1e-5)
    assert np.mean(there.labels["proxy"] == here.labels["proxy"]) > 0.98


def test_exchange_over_nccl(tmp_path: Path) -> None:
    dist.init_process_group(
        "nccl", init_method=f"file://{tmp_path}/store", rank=0, world_size=1, device_id=CUDA
    )
    try:
        exchange = Exchange()
        exchange.active = True  # one rank would skip the collectives
        x = torch.randn(8, DIM, device=CUDA)
        for result in (
            exchange.gather_rows(x),
            exchange.gather_rows(x.bfloat16()).float() + (x - x.bfloat16().float()),
            exchange.scatter_sum_rows(x),
            exchange.columns_to_rows(x, DIM),
            exchange.rows_to_columns(x),
            exchange.sum_(x.clone()),
        ):
            torch.testing.assert_close(result, x)
        block = x.clone()
        exchange.begin_sum(block)()
        assert torch.equal(block, x)
        exchange.barrier()
    finally:
        dist.destroy_process_group()


def test_two_epochs_of_training(tmp_path: Path) -> None:
    data = make_data_set(tmp_path / "data")
    config = make_config(classifier={"precision": "float32"})
    labels = data.split("train").labels.take(split_rows(data, config)[0])
    losses, results = [], []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        folder.mkdir()
        ranges = LocalRanges([LabelRange((0, labels.num_columns), labels, device=device)])
        training = Training(config, data, folder, ranges, Exchange(), device=device)
        reports = list(training.epochs())
        losses.append(np.concatenate([report.step_losses for report in reports]))
        results.append(reports[-1].line["validation"]["P@1"])
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    assert results[1] == pytest.approx(results[0], abs=5.0)
