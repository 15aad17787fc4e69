"""What each kind of evidence is worth: the score refitted without it.

    python benchmarks/score_ablation.py RUN [--json FILE]

Takes the validation documents of a run (a share of train that neither the encoder nor the
neighbours have seen), fits the score to every other one and measures it on the rest, once with
everything and once without each part. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ray_xml import blend
from ray_xml.blend import NAMES
from ray_xml.predictor import Predictor
from ray_xml.refresh import true_candidates
from ray_xml.run_data import metric_sums, split_rows
from ray_xml.scoring import top_k
from ray_xml.store import DataSet

SHOWN = ("P@1", "P@3", "P@5", "PSP@1", "PSP@5", "nDCG@5")
DENSE = ("logit", "cosine")
WORDS = ("centroid", "log centroid", "association", "log association")
VOTES = tuple(name for name in NAMES if "votes" in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    predictor = Predictor.load(options.run)
    data = DataSet.open(predictor.config.data)
    _, held = split_rows(data, predictor.config)
    train = data.split("train")
    labels = train.labels.take(held)
    evidence = predictor.evidence(train.features.take(held))
    counts = predictor.lexical.label_counts
    features = evidence.features(counts)
    truth = true_candidates(evidence.labels, labels)
    there = evidence.labels >= 0
    fitted = np.arange(len(held)) % 2 == 0

    def measure(without: tuple[str, ...], *, products: bool = True) -> dict[str, float]:
        gone = np.array([name in without for name in NAMES])
        kept = np.where(gone, np.float32(0), features)
        examples = [(kept[fitted][there[fitted]], truth[fitted][there[fitted]])]
        fit = blend.fit(examples, products=products)
        scores = fit.log_odds_of(kept[~fitted])
        best = top_k(evidence.labels[~fitted], scores, 5)[0]
        sums = metric_sums(data, predictor.config.dataset)
        sums.update(best, labels.take(np.flatnonzero(~fitted)))
        result = sums.result()
        return {key: round(result[key], 2) for key in SHOWN}

    rows = {
        "everything": measure(()),
        "no products of features": measure((), products=False),
        "no neighbours' votes": measure(VOTES),
        "no label words": measure(WORDS),
        "no classifier, no proxies": measure(DENSE),
        "no votes, no words": measure(VOTES + WORDS),
        "no label count": measure(("log count",)),
    }
    print(f"{data.meta.name}: {len(held):,} validation documents, half fitted, half measured\n")
    print("| score | " + " | ".join(SHOWN) + " |")
    print("|---|" + "---|" * len(SHOWN))
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[key]:.2f}" for key in SHOWN) + " |")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
