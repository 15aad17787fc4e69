"""What reciprocal pairs do to figures: a filter of wordnet-114k, made and measured.

    python benchmarks/wordnet_filter.py WORDNET --work FOLDER

Every label of wordnet-114k is a synset, mostly with a document of its own, in train or in test.
Pointers are mostly mutual, so for most test pairs (d, l) the document of l is in train and has d's
synset as its label: a method that uses the labels' texts is told the answer.
The filter names those pairs of both splits, and each document with its own synset. The data set is
prepared with it, trained on, and measured with and without.
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path

import numpy as np
from our_command import command

from ray_xml.xc_io import open_xc

CONFIG = Path(__file__).parents[1] / "configs" / "wordnet-114k.yaml"
SPLITS = ("train", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of XC files, with ids and labels")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for split, lines in reciprocal(options.data).items():
        (options.work / f"{split}.filter.txt").write_text("".join(lines))
        print(f"{split}: {len(lines):,} pairs")
    data, run = options.work / "data", options.work / "run"
    files = [str(options.data / f"{split}.txt.xz") for split in SPLITS]
    filters = [f"--filter-{split}={options.work / f'{split}.filter.txt'}" for split in SPLITS]
    command([*["prepare", "xc", "--overwrite"], *files, str(data), *filters])
    places = [f"data={data}", f"run={run}", *options.overrides]
    command(["train", str(CONFIG), *places])
    for more in ([], ["--no-filter"]):
        found = json.loads(command(["evaluate", str(run), "--json", *more]))
        keys = ("P@1", "P@3", "P@5", "nDCG@5", "PSP@1", "PSP@5", "R@5")
        name = "with the filter" if not more else "without"
        print(name.ljust(16), "  ".join(f"{key} {found[key]:.2f}" for key in keys))


def reciprocal(folder: Path) -> dict[str, list[str]]:
    """By split, the lines of its filter."""
    with lzma.open(folder / "labels.txt.xz", "rt", encoding="utf-8") as file:
        label_of = {line.split("\t", 1)[0]: number for number, line in enumerate(file)}
    own, labels = {}, {}
    for split in SPLITS:
        with lzma.open(folder / f"{split}.ids.txt.xz", "rt", encoding="utf-8") as file:
            # A synset that nothing points to is no label.
            own[split] = [label_of.get(line.strip(), -1) for line in file]
        blocks = [rows for _, rows in open_xc(folder / f"{split}.txt.xz").blocks()]
        labels[split] = [
            own_ids
            for rows in blocks
            for own_ids in np.split(rows.packed().ids, rows.packed().offsets[1:-1])
        ]
    named = {
        (synset, int(label))
        for synset, ids in zip(own["train"], labels["train"], strict=True)
        for label in ids
    }
    back: dict[int, list[int]] = {}
    for synset, label in named:
        back.setdefault(label, []).append(synset)
    found = {}
    for split in SPLITS:
        pairs = [
            (document, other)
            for document, synset in enumerate(own[split])
            for other in sorted({synset, *back.get(synset, [])})
            if other >= 0
        ]
        found[split] = [f"{document} {label}\n" for document, label in pairs]
    return found


if __name__ == "__main__":
    main()
