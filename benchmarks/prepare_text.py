"""How fast ``ray-xml prepare text`` is, and what memory it takes, on real texts, once and repeated.

    python benchmarks/prepare_text.py FOLDER --work data/texts [--copies 1 8] [--processes 1 2]

FOLDER holds texts line by line beside an XC file (``train.raw.txt.xz``, ``train.txt.xz``,
``labels.txt.xz`` with a tab before each name, and the same of test): these become JSON lines first.
Copies of a document differ by one word, so that they are no duplicates. Prints, for each way to
make features, documents a second (read twice, written once), processor seconds and the peak memory
of all processes together (PSS).
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import sys
from pathlib import Path

from process_tree import run

WAYS = {
    "words": [],
    "runs of 1-2 words": ["--ngrams", "1-2"],
    "runs, hashed to 2^20": ["--ngrams", "1-2", "--hash", "2^20"],
    "words, 3-5 characters": ["--char-ngrams", "3-5", "--max-features", "200000"],
}


def convert(folder: Path, split: str, out: Path, copies: int) -> int:
    """Writes the JSON lines of a split; returns their number."""
    count = 0
    with lzma.open(folder / "labels.txt.xz", "rt", encoding="utf-8") as lines:
        names = [line.rstrip("\n").split("\t", 1)[1] for line in lines]
    with out.open("w", encoding="utf-8") as file:
        for copy in range(copies):
            with (
                lzma.open(folder / f"{split}.raw.txt.xz", "rt", encoding="utf-8") as texts,
                lzma.open(folder / f"{split}.txt.xz", "rt", encoding="utf-8") as rows,
            ):
                next(rows)  # the header
                for text, row in zip(texts, rows, strict=True):
                    ids = row.split(" ", 1)[0]
                    labels = [names[int(label)] for label in ids.split(",")] if ids else []
                    record = {"text": f"{text.strip()} copy{copy}", "labels": labels}
                    file.write(json.dumps(record) + "\n")
                    count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    print(f"{'features':<24}{'documents':>10}{'processes':>10}{'docs/s':>9}{'CPU s':>8}{'MiB':>7}")
    for copies in options.copies:
        files = {split: options.work / f"{split}.jsonl" for split in ("train", "test")}
        count = sum(convert(options.folder, split, file, copies) for split, file in files.items())
        for way in options.ways:
            for processes in options.processes:
                command = [sys.executable, "-m", "ray_xml.cli", "prepare", "text"]
                command += [str(files["train"]), str(options.work / "set"), "--overwrite"]
                command += ["--test", str(files["test"]), "--text", "text", "--labels", "labels"]
                command += ["--processes", str(processes), *WAYS[way]]
                log = options.work / "log.txt"
                usage = run(command, env=os.environ, log=log)
                if usage.status:
                    sys.exit(log.read_text(encoding="utf-8"))
                rate, memory = count / usage.wall_seconds, usage.peak_pss / 2**20
                print(
                    f"{way:<24}{count:>10,}{processes:>10}{rate:>9,.0f}"
                    f"{usage.cpu_seconds:>8.1f}{memory:>7,.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
