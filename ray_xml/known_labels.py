"""A trained model's own labels as if they were new ones: with a few of their documents, or a name.

What new labels need to be learnt is learnt from them, and tried on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ray_xml.errors import DataSetError
from ray_xml.sparse import Csr, Rows, stacked

_MOST = 32  # documents drawn of a label: more say little more
_FEWEST = 50  # labels to learn from, if there are so many


class Shape(NamedTuple):
    """What a new label comes with.

    Attributes:
        documents: example documents.
        named: whether its name is one besides.
    """

    documents: int
    named: bool


class Drawn(NamedTuple):
    """Documents of some labels.

    Attributes:
        features: [n, V].
        labels: [n, m] which of the m labels they are of.
    """

    features: Csr
    labels: Csr


class KnownLabels:
    """The labels with their training documents."""

    def __init__(self, features: Rows, labels: Rows, names: Csr | None = None) -> None:
        """
        Args:
            features, labels: [N, V] and [N, L], of the documents that were fitted.
            names: [L, V], features of the labels' names; needed for shapes with a name.
        """
        self._features, self._names = features, names
        self._documents = labels.columns(0, labels.num_columns).transpose()

    def able(self, shape: Shape, among: np.ndarray) -> tuple[np.ndarray, Shape]:
        """The labels that can be drawn in this shape, or in the nearest smaller one that some
        dozens of labels have documents for.

        Args:
            among: int [m], labels with a document.

        Raises:
            DataSetError: there is none that could be used.
        """
        shape = shape._replace(documents=min(shape.documents, _MOST))
        if shape.named:
            assert self._names is not None, "the labels' names were not given"
            among = among[self._names.counts[among] > 0]
        while True:
            able = among[self._documents.counts[among] >= shape.documents]
            if len(able) >= min(_FEWEST, len(among)) or shape.documents <= 1:
                break
            shape = shape._replace(documents=shape.documents // 2)
        if not len(able):
            what = " and a name of which the model knows a word" if shape.named else ""
            raise DataSetError(
                f"no label of the model has documents{what}, so it cannot learn what those of new "
                "labels are worth" + (": give example texts" if shape.named else "")
            )
        return able, shape

    def draw(self, labels: np.ndarray, shapes: Sequence[Shape], rng: np.random.Generator) -> Drawn:
        """Documents of ``labels``, int [m], each in its shape; each must be ``able`` to."""
        rows: list[np.ndarray] = []
        named: list[int] = []
        held: list[list[int]] = []
        for place, (label, shape) in enumerate(zip(labels.tolist(), shapes, strict=True)):
            own = self._documents.slice(label, label + 1).packed().ids
            rows.append(rng.choice(own, shape.documents, replace=False))
            held += [[place]] * shape.documents
            if shape.named:
                named.append(place)
        chosen = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
        parts = [self._features.take(chosen)]
        if named:
            assert self._names is not None
            parts.append(self._names.take(np.asarray(labels)[named]))
        held += [[place] for place in named]
        features = stacked(parts, self._features.num_columns)
        return Drawn(features, Csr.from_lists(held, len(labels)))
