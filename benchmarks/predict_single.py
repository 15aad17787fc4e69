"""How long a loaded predictor takes for one text at a time, and to load.

    ray-xml export RUN MODEL --dtype int8
    python benchmarks/predict_single.py MODEL DATA

A model whose data set has no texts gets made-up words, one a feature, and the test documents as
texts of these, in a random order, each word once. So the time has the vectoriser in it.

Besides the clock's times there are the thread's own processor times, which others at work on the
machine move less. Start-up is from a fresh interpreter to the first answer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ray_xml.data_url import open_data
from ray_xml.predictor import Predictor
from ray_xml.text import VECTORIZER, TextSettings, Vectorizer

_START = """
import time
began = time.perf_counter(), time.process_time()
import sys
from ray_xml.predictor import Predictor
Predictor.load(sys.argv[1]).predict([sys.argv[2]])
print(time.perf_counter() - began[0], time.process_time() - began[1])
"""


def with_words(model: Path, data: str, folder: Path) -> Path:
    """The model itself, or a copy of it with made-up words."""
    if (model / VECTORIZER).is_file():
        return model
    copy = Path(shutil.copytree(model, folder / "model"))
    train = open_data(data).split("train")
    counts = train.features.column_counts()
    names = [f"word{number}" for number in range(len(counts))]
    Vectorizer(TextSettings(min_df=1), train.num_documents, counts, names).save(copy)
    return copy


def made_texts(data: str, names: list[str], count: int) -> list[str]:
    """Test documents as texts of their features' names."""
    features = open_data(data).split("test").features
    rng = np.random.default_rng(0)
    rows = rng.choice(features.num_rows, min(count, features.num_rows), replace=False)
    texts = []
    for row in rows.tolist():
        ids = features.slice(row, row + 1).packed().ids
        texts.append(" ".join(names[feature] for feature in rng.permutation(ids)))
    return texts


def timed(predictor: Predictor, texts: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds a text: of the clock and of the thread, by percentile."""
    wall, own = [], []
    for text in texts:
        began = time.perf_counter(), time.thread_time()
        predictor.predict([text], top_k=5)
        wall.append(1e3 * (time.perf_counter() - began[0]))
        own.append(1e3 * (time.thread_time() - began[1]))
    return {
        name: {f"p{p}": round(float(np.percentile(times, p)), 3) for p in (10, 50, 90, 99)}
        for name, times in (("clock", wall), ("processor", own))
    }


def started(model: Path, text: str) -> dict[str, float]:
    """Seconds from a fresh interpreter to the first answer, the best of three."""
    command = [sys.executable, "-c", _START, str(model), text]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    clock, processor = (min(float(run[place]) for run in runs) for place in (0, 1))
    return {"clock": round(clock, 2), "processor": round(processor, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="an exported model")
    parser.add_argument("data", help="its data set")
    parser.add_argument("--texts", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        model = with_words(options.model, options.data, Path(scratch))
        predictor = Predictor.load(model)
        names = predictor.vectorizer.names
        assert names is not None, "a vectoriser that hashes has no names to make texts of"
        texts = made_texts(options.data, names, options.texts)
        timed(predictor, texts[:100])
        found = {
            "labels": predictor.num_labels,
            "texts": len(texts),
            "words of a text": round(float(np.mean([len(text.split()) for text in texts])), 1),
            "milliseconds a text": timed(predictor, texts),
            "seconds to start": started(model, texts[0]),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
