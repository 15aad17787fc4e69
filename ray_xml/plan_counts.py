"""What a plan has to know of a data set: its counts, from the data itself or from a shape.

Only label frequencies matter beyond plain numbers: they decide where label ranges are cut, how many
labels of a range have documents, and how many different labels a batch meets. Where there is no
data they follow the law of the made data sets (``synth_labels``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ray_xml.data_url import open_data
from ray_xml.errors import ConfigError
from ray_xml.run_config import RunConfig
from ray_xml.store import DataSet
from ray_xml.store_meta import LABEL_TEXTS
from ray_xml.synth_labels import label_frequencies
from ray_xml.synth_shapes import PUBLISHED, Shape, shape


@dataclass(frozen=True)
class Counts:
    """A data set by its numbers.

    Attributes:
        documents, test_documents: of train (those held out for validation and labels' texts
            included) and test.
        features: V.
        entries: stored features of train's documents.
        label_counts: int64 [L], documents of train with each label.
        dense: features that every document has, of an embedding.
        assumed: what was made up, in words; empty for a data set that is there.
    """

    documents: int
    test_documents: int
    features: int
    entries: int
    label_counts: np.ndarray
    dense: int = 0
    assumed: tuple[str, ...] = ()

    @property
    def labels(self) -> int:
        """L."""
        return len(self.label_counts)

    @property
    def pairs(self) -> int:
        """Stored (document, label) pairs of train."""
        return int(self.label_counts.sum())

    @property
    def per_document(self) -> float:
        """Stored features of a document."""
        return self.entries / self.documents

    @property
    def nbytes(self) -> int:
        """Bytes of train's file: ids and values of features, ids of labels, offsets of each."""
        return 8 * self.entries + 4 * self.pairs + 24 * (self.documents + 1)

    @staticmethod
    def of_data(data: DataSet) -> Counts:
        """The counts of a prepared data set, of which the labels of train are read."""
        test = data.meta.splits.get("test")
        trained = [name for name in ("train", LABEL_TEXTS) if name in data.meta.splits]
        counts = [data.split(name).labels.column_counts() for name in trained]
        return Counts(
            documents=sum(data.meta.splits[name].documents for name in trained),
            test_documents=test.documents if test else 0,
            features=data.meta.num_features,
            entries=sum(data.meta.splits[name].feature_nnz for name in trained),
            label_counts=np.sum(counts, axis=0),
            dense=data.meta.num_features - data.meta.num_words,
        )

    @staticmethod
    def of_shape(wanted: Shape) -> Counts:
        """The counts that a data set of this shape would have, about.

        Where there are more pairs than labels, every label is taken to have a document, as in the
        published sets: that is the larger plan.
        """
        pairs = wanted.documents * wanted.labels_per_document
        share = label_frequencies(wanted.labels, wanted.labels_per_document, wanted.zipf)
        random = np.random.default_rng([wanted.seed, 0x91A2])
        counts = np.minimum(random.poisson(share * pairs), wanted.documents)
        if pairs >= wanted.labels:
            counts = np.maximum(counts, 1)
        return Counts(
            documents=wanted.documents,
            test_documents=wanted.test_documents,
            features=wanted.features,
            entries=round(wanted.documents * wanted.features_per_document),
            label_counts=random.permutation(counts).astype(np.int64),
            assumed=(
                f"{wanted.features_per_document:g} features and {wanted.labels_per_document:g} "
                "labels a document",
                f"label frequencies as Zipf's with exponent {wanted.zipf:g}",
            ),
        )

    def without(self, share: float) -> Counts:
        """What is left to train on when ``share`` of train is held out: as often, of each label."""
        held = round(self.documents * share)
        left = 1.0 - held / self.documents
        counts = self.label_counts * left
        # A label of one document loses it with the document: in the mean.
        whole = np.floor(counts).astype(np.int64)
        rest = np.random.default_rng(0x4E1D).random(len(counts)) < counts - whole
        return replace(
            self,
            documents=self.documents - held,
            entries=round(self.entries * left),
            label_counts=whole + rest,
        )


def planned_counts(
    config: RunConfig, like: str | None, asked: dict[str, float | None] | None = None
) -> Counts:
    """The counts to plan for: of ``config.data``, of the set ``like``, or of the config's own.

    Args:
        like: a name in ``synth_shapes.PUBLISHED``; comes before ``config.data``.
        asked: fields of ``synth_shapes.Shape`` that are wanted so; any of them rules the data out.

    Raises:
        ConfigError: neither of them says what the data set is like, or a number is out of range.
        DataSetError: ``config.data`` is no data set.
    """
    given = {key: value for key, value in (asked or {}).items() if value is not None}
    if config.data and like is None and not given:
        return Counts.of_data(open_data(config.data))
    stated = config.dataset
    known = {
        "documents": stated.train,
        "test_documents": stated.test,
        "features": stated.features,
        "labels": stated.labels,
    }
    stated_all = {key: value for key, value in known.items() if value is not None}
    if like is None:
        named = (stated.name or "").lower()
        like = named if named in PUBLISHED else None
    if like is None and not {"documents", "features", "labels"} <= {*stated_all, *given}:
        raise ConfigError(
            "nothing says what data set to plan for: add data=DATA, --like NAME, or --documents, "
            "--features and --labels"
        )
    return Counts.of_shape(shape(like=like, asked={**stated_all, **given}))
