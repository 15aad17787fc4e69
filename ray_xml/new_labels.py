"""Labels into and out of a trained model, without training.

A new label's documents join the sparse channel, where they vote for it and count as its words; its
proxy and classifier row come from their mean embedding by maps that were fitted to known labels
(``label_maps``); and it gets a score of its own (``added_labels``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ray_xml.added_labels import AddedLabels
from ray_xml.blend import Blend
from ray_xml.known_labels import Drawn, KnownLabels, Shape
from ray_xml.label_maps import LabelMaps, centroids_of
from ray_xml.lexical import Lexical
from ray_xml.model import Model
from ray_xml.neighbors import Neighbors
from ray_xml.predict_documents import BLOCK, DocumentSide
from ray_xml.sparse import Csr, stacked

_LABELS, _DOCUMENTS = 20_000, 100_000  # that a map is fitted to at most


class NewLabels:
    """Makes proxies and rows of new labels of some shapes.

    Args:
        model: the trained model.
        known: its labels.
        among: int [m], those to learn from.
        shapes: of the labels to come.
        rng: chooses labels and documents.
    """

    def __init__(
        self,
        model: Model,
        known: KnownLabels,
        among: np.ndarray,
        shapes: Sequence[Shape],
        rng: np.random.Generator,
    ) -> None:
        self._side = DocumentSide(model)
        self._maps: dict[tuple[int, bool], LabelMaps] = {}
        for kind in sorted({_kind(shape) for shape in shapes}):
            own = [shape for shape in shapes if _kind(shape) == kind]
            middle = sorted(own)[len(own) // 2]
            able, shape = known.able(middle, among)
            most = min(_LABELS, _DOCUMENTS // max(sum(shape), 1))
            if len(able) > most:
                able = np.sort(rng.choice(able, most, replace=False))
            drawn = known.draw(able, [shape] * len(able), rng)
            places = np.searchsorted(model.labels, able)
            self._maps[kind] = LabelMaps.fit(
                self.centroids(drawn), model.proxies[places], model.rows[places]
            )

    def centroids(self, drawn: Drawn) -> np.ndarray:
        """float64 [m, D]."""
        blocks = [self._side.encode(block) for _, block in drawn.features.blocks(BLOCK)]
        return centroids_of(drawn.labels, np.concatenate(blocks))

    def of(self, drawn: Drawn, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
        """(proxies float32 [m, D], rows float32 [m, D + 1]) of labels with these documents."""
        centroids = self.centroids(drawn)
        dim = centroids.shape[1]
        proxies, rows = (
            np.empty((len(shapes), dim), np.float32),
            np.empty((len(shapes), dim + 1), np.float32),
        )
        kinds = [_kind(shape) for shape in shapes]
        for kind, maps in self._maps.items():
            own = np.array([one == kind for one in kinds])
            proxies[own], rows[own] = maps.proxies(centroids[own]), maps.rows(centroids[own])
        return proxies, rows


def _kind(shape: Shape) -> tuple[int, bool]:
    """Shapes of one kind share a map: up to twice as many documents."""
    return shape.documents.bit_length(), shape.named


def with_labels(
    model: Model, drawn: Drawn, proxies: np.ndarray, rows: np.ndarray, blend: Blend
) -> Model:
    """The model with m labels more, numbered from ``model.num_labels`` on.

    Args:
        drawn: their documents.
        proxies, rows: float32 [m, D] and [m, D + 1].
        blend: their score.
    """
    old, first = model.neighbors, model.num_labels
    width = first + drawn.labels.num_columns
    asked = old.queries(drawn.features)
    if old.config.size == 0:  # the channel is left out: no document has features in it
        none = np.zeros_like(asked.offsets)
        asked = Csr(none, asked.ids[:0], np.zeros(0, np.float32), asked.num_columns)
    known, new = old.labels.packed(), drawn.labels.packed()
    labels = [
        replace(known, num_columns=width),
        Csr(new.offsets, (new.ids + first).astype(np.int32), None, width),
    ]
    neighbors = Neighbors.of_documents(
        old.config,
        stacked([old.documents, asked], old.num_features),
        stacked(labels, width),
        old.weights,
    )
    numbers = np.arange(first, width, dtype=np.int32)
    added = AddedLabels(first, drawn.features.num_rows, blend)
    return replace(
        model,
        lexical=Lexical.build(neighbors),
        labels=np.concatenate([model.labels, numbers]),
        proxies=np.concatenate([model.proxies, proxies.astype(model.proxies.dtype)]),
        rows=np.concatenate([model.rows, rows.astype(model.rows.dtype)]),
        added=(*model.added, added),
    )


def without_labels(model: Model, gone: np.ndarray) -> Model:
    """The model as if it had never met the labels ``gone``, int [m], but for its encoder; their
    numbers stay unused."""
    out = np.zeros(model.num_labels, bool)
    out[gone] = True
    old = model.neighbors
    rows = old.labels.packed()
    kept = ~out[rows.ids]
    before = np.concatenate([[0], np.cumsum(kept)])
    labels = Csr(before[rows.offsets], rows.ids[kept], None, rows.num_columns)
    neighbors = Neighbors.of_documents(old.config, old.documents, labels, old.weights)
    stays = ~out[model.labels]
    return replace(
        model,
        lexical=Lexical.build(neighbors),
        labels=model.labels[stays],
        proxies=model.proxies[stays],
        rows=model.rows[stays],
    )
