"""What a data set made of texts is like: counts that a user should see before training on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ray_xml.metrics import BINS, frequency_bins
from ray_xml.sparse import Csr
from ray_xml.store_meta import SplitMeta

SUMMARY = "summary.json"
_SHARES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


class SplitCounts:
    """Adds up what is told of a split.

    Memory is 8 bytes a document and 8 a label.
    """

    def __init__(self, num_labels: int) -> None:
        self.labels = np.zeros(num_labels, np.int64)
        self._hashes: list[np.ndarray] = []

    def add(self, labels: Csr, hashes: np.ndarray) -> None:
        """Documents with their labels [n, L] and content hashes uint64 [n]."""
        self.labels += labels.column_counts()
        self._hashes.append(hashes)

    @property
    def hashes(self) -> np.ndarray:
        """uint64 [documents]."""
        return np.concatenate([np.zeros(0, np.uint64), *self._hashes])


def summarise(
    counts: dict[str, SplitCounts],
    written: dict[str, SplitMeta],
    *,
    num_features: int,
    notes: dict[str, int],
) -> dict[str, Any]:
    """The summary, as JSON takes it.

    Args:
        counts: of each split, "train" among them.
        written: likewise.
        notes: further counts to put in.
    """
    train = counts["train"]
    seen = np.unique(train.hashes)
    summary: dict[str, Any] = {
        "features": num_features,
        "labels": len(train.labels),
        "labels_without_train_documents": int((train.labels == 0).sum()),
        **notes,
        "splits": {},
    }
    for name, split in counts.items():
        meta, hashes = written[name], split.hashes
        told = {
            "documents": meta.documents,
            "labels_per_document": round(meta.label_pairs / max(meta.documents, 1), 4),
            "features_per_document": round(meta.feature_nnz / max(meta.documents, 1), 4),
            "without_features": meta.left_out_no_features + meta.kept_no_features,
            "without_labels": meta.left_out_no_labels + meta.kept_no_labels,
            "left_out": meta.left_out_no_features + meta.left_out_no_labels,
            "repeated_texts": len(hashes) - len(np.unique(hashes)),
        }
        if name != "train":
            told["texts_also_in_train"] = int(np.isin(hashes, seen).sum())
            told["labels_not_in_train"] = int(((split.labels > 0) & (train.labels == 0)).sum())
        summary["splits"][name] = told
    summary["train_documents_of_a_label"] = _frequencies(train.labels)
    return summary


def _frequencies(labels: np.ndarray) -> dict[str, Any]:
    """The curve of label frequencies: its quantiles, and its head, torso and tail."""
    ordered = np.sort(labels)[::-1]
    places = [round(share * (len(ordered) - 1)) for share in _SHARES]
    bins = frequency_bins(labels)
    return {
        "of_the_labels": {
            f"{share:.0%}": int(ordered[place])
            for share, place in zip(_SHARES, places, strict=True)
        },
        "bins": {
            name: {
                "labels": int((bins == number).sum()),
                "documents": int(labels[bins == number].sum()),
            }
            for number, name in enumerate(BINS)
        },
    }


def told(summary: dict[str, Any]) -> Iterable[str]:
    """The summary in lines."""
    yield f"{summary['features']:,} features, {summary['labels']:,} labels"
    for name, split in summary["splits"].items():
        line = (
            f"  {name}: {split['documents']:,} documents, {split['labels_per_document']:.2f} labels"
            f" and {split['features_per_document']:.1f} features each"
        )
        for key, what in (
            ("without_features", "without a known word"),
            ("without_labels", "without labels"),
            ("left_out", "of these left out"),
            ("repeated_texts", "that repeat another's text"),
            ("texts_also_in_train", "whose text is in train too"),
            ("labels_not_in_train", "labels that train lacks"),
        ):
            if split.get(key):
                line += f"; {split[key]:,} {what}"
        yield line
    if texts := summary.get("label_texts"):
        yield (
            f"  label texts: {texts['documents']:,}, of {texts['labels']:,} labels, "
            f"{texts['labels_without_train_documents']:,} of them without train documents; "
            f"{texts['left_out']:,} texts without a known word left out"
        )
    curve = summary["train_documents_of_a_label"]
    yield "  train documents of a label, from the most frequent: " + ", ".join(
        f"{count:,} at {share}" for share, count in curve["of_the_labels"].items()
    )
    yield "  a third of all (document, label) pairs each: " + ", ".join(
        f"{name} {one['labels']:,} labels" for name, one in curve["bins"].items()
    )
    for key, what in (
        ("moved_to_train", "documents went to train so that each label has one there"),
        ("empty_labels", "empty labels left out"),
        ("cleaned_labels", "labels had their white space or broken characters made good"),
    ):
        if summary.get(key):
            yield f"  {summary[key]:,} {what}"
