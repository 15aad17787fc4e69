"""Embeddings beside words, and instead of them: accuracy, and what the dense columns cost.

    python benchmarks/embeddings.py --work FOLDER XC_FOLDER CONFIG [key=value ...]
    python benchmarks/embeddings.py --steps

The vectors are a truncated SVD of the train texts' TF-IDF rows, float16. XC_FOLDER has .raw.txt.xz
files beside the XC files, or else names of features, of which texts are put together. Three data
sets are made of the same texts: words, vectors, both. Each is trained on with CONFIG and measured
on the documents that training holds out of train, and on dev where there is one.

``--steps`` times the encoder's part of a step without and with dense columns, in one process, and
shows where the time goes.
"""

from __future__ import annotations

import argparse
import json
import lzma
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from our_command import command

from ray_xml.embedding import Embedding
from ray_xml.encoder import Encoder, EncoderConfig, TokenBatch
from ray_xml.exchange import Exchange
from ray_xml.predictor import Predictor
from ray_xml.run_records import read_lines
from ray_xml.sparse import Csr
from ray_xml.store import DataSet
from ray_xml.text_fit import fit
from ray_xml.xc_io import open_xc

KEYS = ("P@1", "P@5", "nDCG@5", "PSP@5", "R@5")
DIM = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("given", nargs="*", metavar="XC_FOLDER CONFIG key=value")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--weights", default="1", help="of the vectors beside words: 0.5,1")
    parser.add_argument("--kinds", default="words,vectors,both")
    options = parser.parse_args()
    if options.steps:
        steps()
        return
    source, config, *overrides = options.given
    data = Path(source)
    options.work.mkdir(parents=True, exist_ok=True)
    splits = [name for name in ("train", "dev", "test") if has(data, name)]
    if not (options.work / "test.npy").exists():
        make(data, splits, options.work)
    for kind in options.kinds.split(","):
        for weight in options.weights.split(",") if kind == "both" else ["1"]:
            measure(kind, float(weight), splits, options.work, config, overrides)


def has(folder: Path, split: str) -> bool:
    return (folder / f"{split}.txt.xz").exists()


def make(folder: Path, splits: list[str], work: Path) -> None:
    """Texts with labels, and their vectors."""
    from sklearn.decomposition import TruncatedSVD

    for split in splits:
        with (work / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for text, labels in zip(texts(folder, split), labels_of(folder, split), strict=True):
                file.write(json.dumps({"text": text, "labels": labels}) + "\n")
    vectorizer = fit(given(work, "train"))
    rows = {split: vectorizer.transform(given(work, split)).to_scipy() for split in splits}
    begun = time.perf_counter()
    svd = TruncatedSVD(DIM, n_iter=4, random_state=0).fit(rows["train"])
    print(f"SVD: {time.perf_counter() - begun:.0f} s, {svd.explained_variance_ratio_.sum():.1%}")
    rng = np.random.default_rng(0)
    for split in splits:
        vectors = svd.transform(rows[split]).astype(np.float32)
        # A text without a known word has no direction: it gets any.
        nothing = ~vectors.any(1)
        vectors[nothing] = rng.standard_normal((int(nothing.sum()), DIM))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(work / f"{split}.npy", (vectors / lengths).astype(np.float16))


def given(work: Path, split: str) -> Iterator[str]:
    with (work / f"{split}.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def texts(folder: Path, split: str) -> Iterator[str]:
    raw = folder / f"{split}.raw.txt.xz"
    if raw.exists():
        with lzma.open(raw, "rt", encoding="utf-8") as file:
            yield from (line.strip() for line in file)
        return
    with lzma.open(folder / "features.txt.xz", "rt", encoding="utf-8") as file:
        names = [line.rstrip("\n") for line in file]
    for features, _ in open_xc(folder / f"{split}.txt.xz").blocks():
        rows = features.packed()
        for row in range(rows.num_rows):
            yield " ".join(
                names[one] for one in rows.ids[rows.offsets[row] : rows.offsets[row + 1]]
            )


def labels_of(folder: Path, split: str) -> Iterator[list[str]]:
    """Numbers with leading zeros, so that their order is that of the data set."""
    for _, labels in open_xc(folder / f"{split}.txt.xz").blocks():
        rows = labels.packed()
        for row in range(rows.num_rows):
            yield [f"{one:07d}" for one in rows.ids[rows.offsets[row] : rows.offsets[row + 1]]]


def measure(
    kind: str, weight: float, splits: list[str], work: Path, config: str, overrides: list[str]
) -> None:
    name = f"{kind}-{weight:g}" if kind == "both" else kind
    data, run = work / name, work / f"{name}-run"
    if not (data / "meta.json").exists():
        arguments = ["prepare", "text", str(work / "train.jsonl"), str(data), "--text", "text"]
        arguments += ["--labels", "labels", "--allow-empty"]
        for split in splits:
            option = "" if split == "train" else f"{split}-"
            if split != "train":
                arguments += [f"--{split}", str(work / f"{split}.jsonl")]
            if kind != "words":
                arguments += [f"--{option}embeddings", str(work / f"{split}.npy")]
        arguments += ["--no-words"] if kind == "vectors" else []
        command([*arguments, "--embedding-weight", str(weight)])
    command(["train", config, f"data={data}", f"run={run}", *overrides])
    line = next(line for line in reversed(read_lines(run)) if line.get("validation"))
    seconds = line["seconds"]
    told = "  ".join(f"{key} {line['validation'][key]:.2f}" for key in KEYS)
    print(f"{name:10} validation  {told}  seconds of the last epoch {seconds}", flush=True)
    if "dev" in splits:
        found = json.loads(command(["evaluate", str(run), "--json", "--split", "dev"]))
        print(f"{name:10} dev         " + "  ".join(f"{key} {found[key]:.2f}" for key in KEYS))
    predictor, test = Predictor.load(run), DataSet.open(data).split("test").features
    torch.set_num_threads(1)
    few = test.slice(0, 2048)
    predictor.predict_features(few.slice(0, 64), 5)
    begun = time.perf_counter()
    predictor.predict_features(few, 5)
    together = (time.perf_counter() - begun) / few.num_rows
    alone = []
    for row in range(200):
        begun = time.perf_counter()
        predictor.predict_features(few.slice(row, row + 1), 5)
        alone.append(time.perf_counter() - begun)
    print(
        f"{name:10} prediction, one thread: {1e3 * together:.2f} ms a document in blocks, "
        f"p50 {1e3 * float(np.median(alone)):.2f} ms alone",
        flush=True,
    )


# ---- the encoder's part of a step ----------------------------------------------------------------


def steps(words: int = 40_000, batch: int = 256, dim: int = 384, columns: int = 384) -> None:
    """Batches of documents with 12 or 60 words, by Zipf's law, and as many dense columns as D."""
    torch.set_num_threads(1)
    for a_document in (12, 60):
        print(f"{a_document} words a document, {columns} dense columns, D = {dim}")
        for what in ("words alone", "with dense columns"):
            rng = np.random.default_rng(0)
            batches = [sparse_rows(rng, words, a_document, batch) for _ in range(6)]
            if what != "words alone":
                embedding = Embedding(columns=columns, weight=1.0)
                batches = [
                    embedding.beside(rows, rng.standard_normal((batch, columns)))
                    for rows in batches
                ]
            table = torch.randn(batches[0].num_columns, dim) / dim**0.5
            encoder = Encoder(EncoderConfig(dim=dim), table, Exchange(), seed=0)
            rounds = [np.array([step(encoder, rows) for rows in batches]) for _ in range(7)][1:]
            # The median: others use the machine, too.
            build, forward, backward = 1e3 * np.median(np.concatenate(rounds), axis=0)
            print(
                f"  {what:20} ms a batch of {batch}: build {build:.1f}  forward {forward:.1f}  "
                f"backward {backward:.1f}  all {build + forward + backward:.1f}"
            )
            with torch.profiler.profile() as profile:
                for rows in batches:
                    step(encoder, rows)
            heaviest = sorted(profile.key_averages(), key=lambda one: -one.self_cpu_time_total)[:5]
            told = (f"{one.key} {one.self_cpu_time_total / 6e3:.1f}" for one in heaviest)
            print("    " + "  ".join(told), flush=True)


def sparse_rows(rng: np.random.Generator, words: int, a_document: int, batch: int) -> Csr:
    share = 1.0 / (10.0 + np.arange(words))
    ids = [
        np.sort(rng.choice(words, a_document, replace=False, p=share / share.sum()))
        for _ in range(batch)
    ]
    values = np.full(batch * a_document, a_document**-0.5, np.float32)
    offsets = np.arange(batch + 1) * a_document
    return Csr(offsets, np.concatenate(ids).astype(np.int32), values, words)


def step(encoder: Encoder, rows: Csr) -> tuple[float, float, float]:
    """Seconds of building a batch, forwards and backwards."""
    numbers = torch.arange(rows.num_rows)
    gradient = torch.ones(rows.num_rows, encoder.config.dim)
    begun = time.perf_counter()
    made = TokenBatch.build(numbers, rows, torch.device("cpu"))
    built = time.perf_counter()
    z, u = encoder.forward(made, 0)
    forwarded = time.perf_counter()
    encoder.backward(made, z, u, gradient, 1e-3)
    return built - begun, forwarded - built, time.perf_counter() - forwarded


if __name__ == "__main__":
    main()
