"""The GPU benchmark, on a CPU: that it runs, and that its formulas count what steps do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu
import gpu_clock
import gpu_without_faiss
from gpu_counts import DRAWN, SHORTLIST, Combination, count, expected_candidates, score_bytes
from gpu_data import SMALL, features_of, labels_of
from gpu_step import Stepper

from ray_xml.exchange import Exchange

CPU = torch.device("cpu")
SHAPE, BATCH, DIM = SMALL["small"], 24, 16


@pytest.fixture
def stepper() -> Stepper:
    how = ("bfloat16", "adam_row")
    return Stepper(SHAPE, how, Exchange(), CPU, dim=DIM, batch=BATCH, batches=2)


class Traffic(TorchDispatchMode):
    """Adds up the bytes of tensors of one size that operations read and write."""

    VIEWS = ("view", "t", "detach", "alias", "index", "index_put_", "empty", "resize_")

    def __init__(self, numel: int) -> None:
        super().__init__()
        self.numel, self.bytes = numel, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in self.VIEWS:
            arguments = [*args, *(value for key, value in kwargs.items() if key != "out")]
            touched = [*arguments, *(out if isinstance(out, tuple) else (out,))]
            for tensor in touched:
                if isinstance(tensor, torch.Tensor) and tensor.numel() == self.numel:
                    self.bytes += tensor.numel() * tensor.element_size()
        return out


def test_everything_runs_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--small", "--json", str(path)])
    results = json.loads(path.read_text())
    printed = capsys.readouterr().out
    for part in gpu.PARTS:
        assert f"## {part}" in printed
    steps = results["step"]
    assert [(row["storage"], row["optimizer"]) for row in steps] == list(gpu.COMBINATIONS)
    for row in steps:
        assert "failed" not in row
        assert 0 < row["of_product_peak"] < 2
        assert row["flop_per_second"] == pytest.approx(1000 * row["flops"] / row["ms"])
        assert row["candidates"] <= row["labels"]
    assert results["proxies"][0]["pairs"] == labels_of(SHAPE, SHAPE.train, seed=2).nnz
    assert results["search"][0]["queries_per_second"] > 0
    assert [row["epoch"] for row in results["epochs"]] == [1, 2]
    assert all("shortlist" in row["seconds"] for row in results["epochs"])
    lines = printed.splitlines()
    assert {len(line.split("|")) for line in lines if line.startswith("| small | 900 | f")} == {
        len(gpu.COLUMNS["step"]) + 2
    }


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main(["--paper", "--shapes", "amazontitles-670"])
    assert "'amazontitles-670' is none of" in capsys.readouterr().err


def test_the_paper_table_has_a_row_a_case() -> None:
    lines = gpu.paper(gpu.parse(["--paper", "--batch", "256,1024"])).splitlines()
    assert sum("| 1,024 |" in line for line in lines) == 3 * len(gpu.COMBINATIONS)


def test_flops_are_those_that_torch_counts(stepper: Stepper) -> None:
    batch = stepper.make(0)
    with FlopCounterMode(display=False) as counter:
        stepper.step(batch)
    candidates, occurrences = batch.candidates.count, len(batch.tokens.forward.ids)
    for product in (torch.float32, torch.bfloat16):
        counts = count(
            Combination("bfloat16", "adam_row", product),
            documents=BATCH,
            candidates=candidates,
            dim=DIM,
            tokens=len(batch.tokens.tokens),
            occurrences=occurrences,
        )
        # Torch's counter leaves out the weighted sums of token rows.
        assert counts.flops - 4 * occurrences * DIM == counter.get_total_flops()


@pytest.mark.parametrize("product", [torch.float32, torch.bfloat16])
def test_score_bytes_are_those_of_the_step(stepper: Stepper, product: torch.dtype) -> None:
    batch = stepper.make(0)
    classifier = stepper.classifier
    classifier.product_type = product
    scores = BATCH * batch.candidates.count
    with Traffic(scores) as traffic:
        classifier.step(torch.randn(BATCH, DIM), batch.candidates, BATCH, 0.01)
    assert traffic.bytes == scores * score_bytes(product)


def test_row_bytes_by_hand() -> None:
    sizes = {"documents": 1, "candidates": 10, "dim": 3, "tokens": 1, "occurrences": 1}
    # Rows read for the product; rows and two moments read and written; the gradient likewise; the
    # bias and its moments.
    full = count(Combination("float32", "adam", torch.float32), **sizes)
    assert full.rows == 10 * (3 * (4 + 6 * 4 + 8) + 6 * 4)
    lean = count(Combination("bfloat16", "adam_row", torch.float32), **sizes)
    assert lean.rows == 10 * (3 * (2 + 4 * 2 + 8) + 8 * 4)


def test_expected_candidates_are_those_of_drawing() -> None:
    labels, documents = 50_000, 40
    random = np.random.default_rng(0)
    draws = documents * SHORTLIST + DRAWN
    found = [len(np.unique(random.integers(labels, size=draws))) for _ in range(20)]
    assert expected_candidates(labels, documents) == pytest.approx(np.mean(found), rel=0.005)


def test_made_rows_are_of_the_shape_asked_for() -> None:
    features, labels = features_of(SHAPE, 500, seed=0), labels_of(SHAPE, 500, seed=0)
    assert (features.num_rows, features.num_columns) == (500, SHAPE.features)
    assert labels.num_columns == SHAPE.labels
    assert labels.counts.min() >= 1
    assert labels.counts.mean() == pytest.approx(SHAPE.labels_per_document, rel=0.1)
    for rows in (features, labels):
        for row in range(500):
            ids = rows.slice(row, row + 1).packed().ids
            assert np.all(np.diff(ids) > 0)
    counts = np.sort(labels.column_counts())[::-1]
    assert counts[:90].sum() > 0.3 * labels.nnz  # a tenth of the labels has far more than a tenth


def test_the_median_leaves_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], [100.0, 3.0, 1.0, 2.0]
    monkeypatch.setattr(gpu_clock.time, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += calls.pop(0)

    assert gpu_clock.median_seconds(work, CPU, warm_up=1, repeats=3) == 2.0


def _products(module: Any) -> Callable[..., np.ndarray]:
    def scores(queries: np.ndarray, vectors: np.ndarray, places: np.ndarray) -> np.ndarray:
        out = np.zeros(places.shape, np.float32)
        arrays = (module.swig_ptr(part) for part in (out, queries, vectors, places))
        module.fvec_inner_products_by_idx(*arrays, vectors.shape[1], *places.shape)
        return out

    return scores


def test_what_stands_in_for_faiss_answers_as_faiss_does() -> None:
    random = np.random.default_rng(0)
    queries, vectors = (random.standard_normal((n, DIM), np.float32) for n in (7, 50))
    metric = faiss.METRIC_INNER_PRODUCT
    assert metric == 0
    ours = gpu_without_faiss.knn(queries, vectors, 5, metric=metric)
    theirs = faiss.knn(queries, vectors, 5, metric=metric)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_array_equal(ours[1], theirs[1])
    places = random.integers(50, size=(7, 4))
    np.testing.assert_allclose(
        _products(gpu_without_faiss)(queries, vectors, places),
        _products(faiss)(queries, vectors, places),
        rtol=1e-5,
        atol=1e-6,
    )


def test_it_runs_without_faiss_and_ray() -> None:
    blocked = "import sys; sys.modules.update(faiss=None, ray=None); import gpu; gpu.main()"
    options = ["--device", "cpu", "--small", "--parts", "search,epochs"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked, *options],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2] / "benchmarks",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "without FAISS" in done.stdout
    assert "| small | 2 |" in done.stdout
