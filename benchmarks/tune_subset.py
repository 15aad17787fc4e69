"""A prepared data set with a part of another one's training documents, to search for settings on.

    python benchmarks/tune_subset.py DATA OUT --documents 20000 [--seed 0]

The documents are drawn without replacement and keep their order. Label and feature ids and their
names stay, so a label may be left without a document, as in any data set; the other splits are the
same, byte for byte, so what is trained on a part is measured on what the whole is measured on. The
same DATA, documents and seed make the same data set.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ray_xml.errors import ConfigError, RayXmlError
from ray_xml.sparse import Subset
from ray_xml.store import DataSet
from ray_xml.store_meta import FEATURE_NAMES, LABEL_NAMES, DataSetMeta
from ray_xml.store_write import DataSetWriter

_BLOCK = 8192  # documents copied at a time


def drawn_rows(total: int, documents: int, seed: int) -> np.ndarray:
    """int64 [documents], ascending: which of ``total`` rows are taken.

    Raises:
        ConfigError: there are not so many.
    """
    if not 2 <= documents <= total:
        raise ConfigError(
            f"{documents:,} documents cannot be drawn from {total:,}; give 2 to {total:,}"
        )
    chosen = np.random.default_rng(seed).choice(total, documents, replace=False)
    return np.sort(chosen).astype(np.int64)


def make_subset(
    data: DataSet, out: Path, documents: int, seed: int, *, overwrite: bool = False
) -> DataSetMeta:
    """Writes the data set; its name is that of ``data``, which its propensities depend on.

    Raises:
        ConfigError: ``data`` has not so many training documents.
        DataSetError: ``out`` may not be written, or ``data`` is damaged.
    """
    rows = drawn_rows(data.split("train").num_documents, documents, seed)
    meta = data.meta
    with DataSetWriter(
        out,
        name=meta.name,
        num_features=meta.num_features,
        num_labels=meta.num_labels,
        overwrite=overwrite,
    ) as writer:
        for names, write in (
            (data.label_names(), writer.write_label_names),
            (data.feature_names(), writer.write_feature_names),
        ):
            if names is not None:
                write(names)
        for file in sorted(meta.files.keys() - {LABEL_NAMES, FEATURE_NAMES}):
            # Such as a vectoriser's settings: predictions from text need them.
            text = (data.path / file).read_bytes().decode("utf-8")
            writer.write_text_file(file, text)
        for name in meta.splits:
            split = data.split(name)
            taken = rows if name == "train" else np.arange(split.num_documents)
            features, labels = Subset(split.features, taken), Subset(split.labels, taken)
            with writer.split(name, leave_out_empty=name == "train") as part:
                for first in range(0, len(taken), _BLOCK):
                    until = min(first + _BLOCK, len(taken))
                    part.append(features.slice(first, until), labels.slice(first, until))
    assert writer.meta is not None
    return writer.meta


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a prepared data-set folder")
    parser.add_argument("out", help="the folder to make")
    parser.add_argument("--documents", type=int, required=True, help="training documents to take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a data set at OUT")
    options = parser.parse_args()
    try:
        data = DataSet.open(options.data)
        made = make_subset(
            data, Path(options.out), options.documents, options.seed, overwrite=options.overwrite
        )
    except RayXmlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    used = np.count_nonzero(DataSet.open(options.out).split("train").labels.column_counts())
    train = made.splits["train"]
    print(
        f"{options.out}: {train.documents:,} of {data.meta.splits['train'].documents:,} training "
        f"documents, {train.label_pairs:,} label pairs; {used:,} of {made.num_labels:,} labels "
        "have a document"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
