"""Makes the CSV file of docs/tutorial.md: documented functions with the topics they belong to.

    python examples/make_tutorial_csv.py functions.csv

A row is a function of an installed package: ``id`` its full name, ``title`` its own name in words,
``text`` its docstring, ``topics`` the names of the modules that it is in, below the package,
joined by semicolons. It stands for a table of your own: texts that somebody has tagged.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path

from ray_xml.calls import Document
from ray_xml.docstrings import collect

PACKAGES = ("networkx", "scipy", "sklearn")  # ray_xml needs them, so they are there


def topics(document: Document) -> list[str]:
    """The modules' names; those of private modules and of classes name no topic."""
    _, *modules, _ = document.name.split(".")
    return list(dict.fromkeys(one for one in modules if one.islower() and one[0] != "_"))


def row(document: Document) -> tuple[str, str, str, str]:
    """(id, title, text, topics) of a documented function."""
    title = document.name.rpartition(".")[2].replace("_", " ").strip()
    return document.name, title, document.docstring, ";".join(topics(document))


def drawn(documents: list[Document], count: int) -> list[Document]:
    """``count`` of the documents, the same ones every time, in their order."""
    by_hash = sorted(documents, key=lambda one: hashlib.sha256(one.name.encode()).digest())
    chosen = {one.name for one in by_hash[:count]}
    return [one for one in documents if one.name in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the CSV file to write")
    parser.add_argument("--documents", type=int, default=4000, metavar="N", help="rows to draw")
    options = parser.parse_args()
    tagged = [document for document in collect(PACKAGES).documents if topics(document)]
    documents = drawn(tagged, options.documents)
    with open(options.out, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "title", "text", "topics"))
        writer.writerows(row(document) for document in documents)
    print(f"{options.out}: {len(documents):,} rows")


if __name__ == "__main__":
    main()
