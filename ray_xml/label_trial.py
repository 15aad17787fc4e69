"""What new labels can be expected to be worth: the model's own labels taken out and put back.

Some known labels are taken out of everything but the encoder, and added as new ones are, in the
shapes that the new ones have. Their candidates among the validation documents, which nothing was
trained on, give the score of added labels (``added_labels``): the features of ``blend`` without
products, as right ones are few. They also tell how good it is: each half of the documents is
measured by a score fitted to the other.

The encoder has met the labels of the trial, and not the new ones, which reach about half their
recall where both were measured (docs/new-labels.md). So the odds that the fit gives are halved,
lest new labels push right ones out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ray_xml import blend
from ray_xml.blend import Blend
from ray_xml.errors import DataSetError
from ray_xml.known_labels import KnownLabels, Shape
from ray_xml.model import Model
from ray_xml.new_labels import NewLabels, with_labels, without_labels
from ray_xml.predictor import Predictor
from ray_xml.refresh import true_candidates
from ray_xml.scoring import top_k
from ray_xml.sparse import Csr

_TOP = 5
_ROUNDS = 5  # at most, each with other labels
_ENOUGH = 500  # right candidates
_SHARE = 0.1  # of the labels are taken out at a time
_DOCUMENTS = 4096  # validation documents at most
_BLOCK = 256
_SEEN = np.log(2.0)  # what the odds lose


@dataclass
class Outcome:
    """How the labels of a trial did, as counts.

    Attributes:
        labels: taken out and put back.
        documents: that were predicted, in all rounds.
        pairs: true (document, label) pairs of these labels.
        found: of them, those among the five best of their document.
        told: predictions of these labels among the five best.
        first, five: right labels at the first and at the five best places, of all labels: {without
            these labels, with them}.
    """

    labels: int = 0
    documents: int = 0
    pairs: int = 0
    found: int = 0
    told: int = 0
    first: dict[str, int] = field(default_factory=lambda: {"without": 0, "with": 0})
    five: dict[str, int] = field(default_factory=lambda: {"without": 0, "with": 0})

    @property
    def recall(self) -> float:
        """R@5 of the pairs, in percent."""
        return 100.0 * self.found / max(self.pairs, 1)

    @property
    def precision(self) -> float:
        """Right ones of the predictions of these labels, in percent."""
        return 100.0 * self.found / max(self.told, 1)

    def precision_at(self, k: int, which: str) -> float:
        """P@1 or P@5 of all labels, in percent."""
        hits = self.first if k == 1 else self.five
        return 100.0 * hits[which] / max(self.documents * k, 1)


@dataclass(frozen=True)
class Trial:
    """A score for added labels, and how such a score did.

    Attributes:
        blend: fitted to all of the trial's candidates.
        outcome: under scores that had not seen the documents.
    """

    blend: Blend
    outcome: Outcome


@dataclass(frozen=True)
class _Block:
    """Validation documents with their candidates.

    Attributes:
        labels: int32 [n, m], −1 for none.
        x: float32 [n, m, F], their features; z: float32 [n, m], their score as known labels.
        truth: bool [n, m].
        added: bool [n, m], which are the trial's.
        pairs: the trial's labels that the documents have.
        half: int64 [n], 0 or 1.
    """

    labels: np.ndarray
    x: np.ndarray
    z: np.ndarray
    truth: np.ndarray
    added: np.ndarray
    pairs: int
    half: np.ndarray

    def examples(self, half: int) -> tuple[np.ndarray, np.ndarray]:
        """(features, truth) of the added labels' candidates in one half of the documents."""
        there = self.added & (self.half == half)[:, None]
        return self.x[there], self.truth[there]


def trial(
    model: Model,
    known: KnownLabels,
    shapes: Sequence[Shape],
    features: Csr,
    labels: Csr,
    rng: np.random.Generator,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Trial:
    """Tries added labels of these shapes.

    Args:
        shapes: those of the new labels, which labels of the trial draw from.
        features, labels: [n, V] and [n, L] of the validation documents; the model may have more
            labels than L, which were added before.

    Raises:
        DataSetError: no label that was taken out has a validation document, or there are too few
            labels.
    """
    if features.num_rows > _DOCUMENTS:
        chosen = np.linspace(0, features.num_rows - 1, _DOCUMENTS).astype(np.int64)
        features, labels = features.take(chosen), labels.take(chosen)
    among = model.labels[model.labels < labels.num_columns]
    tried, drawn = _tried(known, shapes, among, rng)
    if len(tried) < 2:
        raise DataSetError("the model has too few labels to learn from how to add others")
    size = max(1, round(_SHARE * len(tried)))
    outcome, blocks = Outcome(), list[_Block]()
    for number in range(min(_ROUNDS, len(tried))):
        progress("trial", number, _ROUNDS)
        order = np.argsort(tried[number * size : (number + 1) * size]) + number * size
        gone, own = tried[order], [drawn[at] for at in order.tolist()]
        maker = NewLabels(model, known, np.setdiff1d(among, gone), own, rng)
        examples = known.draw(gone, own, rng)
        lacking = without_labels(model, gone)
        again = with_labels(lacking, examples, *maker.of(examples, own), model.blend)
        truth = _renumbered(labels, gone, model.num_labels)
        blocks += _blocks(again, features, truth)
        outcome.labels += len(gone)
        outcome.documents += features.num_rows
        if sum(int(block.truth[block.added].sum()) for block in blocks) >= _ENOUGH:
            break
    halves = [[block.examples(half) for block in blocks] for half in (0, 1)]
    if not any(truth.any() for some in halves for _, truth in some):
        raise DataSetError(
            "no validation document has a label that new ones can be tried by: train with more "
            "validation documents (training.validation)"
        )
    scores = [_fit(some) for some in halves]
    for block in blocks:
        _measure(block, scores, outcome)
    return Trial(_fit(halves[0] + halves[1]), outcome)


def _fit(examples: Sequence[tuple[np.ndarray, np.ndarray]]) -> Blend:
    fitted = blend.fit(examples, products=False)
    weights = fitted.weights.copy()
    weights[0] -= _SEEN
    return replace(fitted, weights=weights)


def _tried(
    known: KnownLabels, shapes: Sequence[Shape], among: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[Shape]]:
    """(labels int [m] in a drawn order, the shape of each): those that have the documents for a
    shape drawn for them."""
    able = {shape: known.able(shape, among) for shape in set(shapes)}
    tried: list[int] = []
    drawn: list[Shape] = []
    sets = {shape: set(labels.tolist()) for shape, (labels, _) in able.items()}
    wanted = rng.integers(len(shapes), size=len(among)).tolist()
    for label, at in zip(rng.permutation(among).tolist(), wanted, strict=True):
        if label in sets[shapes[at]]:
            tried.append(label)
            drawn.append(able[shapes[at]][1])
    return np.array(tried, np.int64), drawn


def _blocks(model: Model, features: Csr, truth: Csr) -> list[_Block]:
    """The candidates of all documents; the trial's labels are those added last."""
    predictor, first = Predictor(model), model.added[-1].first
    found = []
    for start, block in features.blocks(_BLOCK):
        evidence = predictor.evidence(block)
        own = truth.slice(start, start + block.num_rows).packed()
        # Labels that were added before the trial have no truth here, so they take no part.
        others = (evidence.labels >= model.added[0].first) & (evidence.labels < first)
        found.append(
            _Block(
                np.where(others, np.int32(-1), evidence.labels),
                evidence.features(predictor.lexical.label_counts),
                model.log_odds(evidence),
                true_candidates(evidence.labels, own),
                evidence.labels >= first,
                int((own.ids >= first).sum()),
                (start + np.arange(block.num_rows)) % 2,
            )
        )
    return found


def _renumbered(labels: Csr, gone: np.ndarray, first: int) -> Csr:
    """The labels with those of ``gone`` numbered from ``first`` on."""
    number = np.arange(labels.num_columns)
    number[gone] = first + np.arange(len(gone))
    rows = labels.packed()
    # Not ascending in a row any more, which looking them up does not need.
    return Csr(rows.offsets, number[rows.ids].astype(np.int32), None, first + len(gone))


def _measure(block: _Block, scores: Sequence[Blend], outcome: Outcome) -> None:
    z = block.z.copy()
    for half in (0, 1):
        there = block.added & (block.half == half)[:, None]
        z[there] = scores[1 - half].log_odds_of(block.x[there])
    outcome.pairs += block.pairs
    numbers, none = np.arange(block.labels.shape[1], dtype=np.int32), block.labels < 0
    for which, hidden in (("with", none), ("without", none | block.added)):
        places = top_k(np.where(hidden, np.int32(-1), numbers), z, _TOP)[0]
        at = np.maximum(places, 0)
        right = np.take_along_axis(block.truth, at, 1) & (places >= 0)
        outcome.first[which] += int(right[:, 0].sum())
        outcome.five[which] += int(right.sum())
        if which == "with":
            told = np.take_along_axis(block.added, at, 1) & (places >= 0)
            outcome.told += int(told.sum())
            outcome.found += int((told & right).sum())
