"""Label proxies and exact search on one device, and whole epochs with everything between them."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from gpu_clock import Peaks, begin_memory, median_seconds, peak_gib, synchronise
from gpu_data import labels_of

from ray_xml import proxies, synth_shapes
from ray_xml.config import build_config
from ray_xml.exact_search import TorchSearch
from ray_xml.exchange import Exchange
from ray_xml.label_index import IndexConfig, LabelIndex
from ray_xml.label_range import LabelRange
from ray_xml.matrix_file import MatrixFile
from ray_xml.ranges import LocalRanges
from ray_xml.run_config import RunConfig
from ray_xml.run_data import split_rows
from ray_xml.store import DataSet
from ray_xml.synth import synthesise
from ray_xml.synth_shapes import Statistics
from ray_xml.training import Training

_BLOCK = 65536  # embeddings made at a time
_FOUND = 100  # labels searched for


def proxy_row(name: str, shape: Statistics, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a cycle's centroids, of a pass of the fit, of the proxies with their index."""
    device, documents = options.device, shape.train
    labels = labels_of(shape, documents, seed=2)
    begin_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        file = MatrixFile(Path(folder) / "embeddings-0000.f16", documents, options.dim)
        file.create()
        random = np.random.default_rng(0)
        for first in range(0, documents, _BLOCK):
            size = (min(_BLOCK, documents - first), options.dim)
            file.write(first, random.standard_normal(size, np.float32).astype(np.float16))
        held = LabelRange((0, shape.labels), labels, device=str(device))
        # The first cycle reads the file from the disk and makes the device's allocator grow.
        held.begin_cycle(file)
        start = proxies.identity_map(options.dim)
        begin = median_seconds(lambda: held.begin_cycle(file), device, warm_up=0, repeats=3)
        one_pass = median_seconds(lambda: held.pair_sums(start), device, warm_up=1, repeats=3)
        synchronise(device)
        began = time.perf_counter()
        held.set_proxies(start)
        synchronise(device)
        mapped = time.perf_counter() - began
    return {
        "shape": name,
        "labels": shape.labels,
        "pairs": labels.nnz,
        "begin_cycle_seconds": begin,
        "pass_seconds": one_pass,
        "set_proxies_seconds": mapped,
        "peak_gib": peak_gib(device),
    }


def search_row(
    name: str, shape: Statistics, peaks: Peaks, options: argparse.Namespace
) -> dict[str, Any]:
    """Queries a second of the products with their selection, and of the index around them."""
    device, random = options.device, np.random.default_rng(0)
    kind = IndexConfig().dtype(shape.labels)
    vectors = np.empty((shape.labels, options.dim), kind)
    for first in range(0, shape.labels, _BLOCK):
        block = vectors[first : first + _BLOCK]
        block[:] = random.standard_normal(block.shape, np.float32)
    queries = random.standard_normal((options.queries, options.dim), np.float32)
    begin_memory(device)
    seconds = _products_alone(vectors, queries, options)
    memory = peak_gib(device)
    on_gpu = device.type == "cuda"
    index = LabelIndex(np.arange(shape.labels, dtype=np.int32), vectors, gpu=on_gpu)
    whole = median_seconds(lambda: index.search(queries, _FOUND), device, warm_up=1, repeats=3)
    flops = 2 * len(queries) * shape.labels * options.dim
    return {
        "shape": name,
        "labels": shape.labels,
        "queries": len(queries),
        "queries_per_second": len(queries) / seconds,
        "flop_per_second": flops / seconds,
        "of_product_peak": flops / seconds / peaks.float32,
        "index": index.kind,
        "index_queries_per_second": len(queries) / whole,
        "peak_gib": memory,
    }


def _products_alone(vectors: np.ndarray, queries: np.ndarray, options: argparse.Namespace) -> float:
    """Seconds of a search whose copy of the vectors does not outlive it."""
    bare = TorchSearch(vectors, str(options.device))
    return median_seconds(lambda: bare.search(queries, _FOUND), options.device, repeats=3)


def epoch_rows(name: str, shape: Statistics, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Two epochs of ``Training`` on made documents, with a refresh before each: one row an epoch.

    Batches are of the largest size asked for.
    """
    device = options.device
    sections = {
        "encoder": {"dim": options.dim, "tokens": "random"},
        "training": {
            "epochs": 2,
            "cycle_epochs": 1,
            "batch_size": max(options.batch),
            "validation": 0.01,
        },
    }
    if options.small:
        sections["classifier"] = {"random_negatives": 100}
    config = build_config(RunConfig, sections, origin="gpu.py")
    begin_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        data = _data_set(Path(folder) / "data", name, shape)
        labels = data.split("train").labels.take(split_rows(data, config)[0])
        resolved = config.resolved(data)
        held = LabelRange((0, shape.labels), labels, resolved.shortlist, device=str(device))
        run = Path(folder) / "run"
        run.mkdir()
        training = Training(config, data, run, LocalRanges([held]), Exchange(), device=str(device))
        rows = []
        for report in training.epochs():
            line = report.line
            rows.append(
                {
                    "shape": name,
                    "epoch": line["epoch"],
                    "documents": shape.train,
                    "loss": line["loss"],
                    "candidates": line["candidates_per_step"],
                    "documents_per_second": line["docs_per_second"],
                    "seconds": line["seconds"],
                    "peak_gib": peak_gib(device),
                }
            )
    return rows


def _data_set(path: Path, name: str, shape: Statistics) -> DataSet:
    """Documents whose words tell their labels, of the published set's shape."""
    asked = {**shape._asdict(), "documents": shape.train, "test_documents": 1}
    del asked["train"], asked["test"]
    wanted = synth_shapes.shape(asked=asked)
    synthesise(path, wanted, name=name)
    return DataSet.open(path)
