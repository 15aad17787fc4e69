"""Why a text gets a label, or does not.

A **term**'s contribution is what the score loses without it, in log-odds:

    Δ_t = z(text) − z(text without t)

where z is the score's log-odds (``blend``) and the text without t is what the vectoriser would
make of it then: the other terms' weights, again of unit length. So everything that a term does is
in Δ_t: to the embedding, to the neighbours, to label words. Contributions do not add up to z, as
terms act together. (Leave-one-out, or occlusion: Robnik-Šikonja, Kononenko, "Explaining
Classifications for Individual Instances", IEEE TKDE 20(5), 2008.)

The nearest training documents are those that vote in the sparse channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from ray_xml.blend import Evidence
from ray_xml.errors import DataSetError
from ray_xml.label_search import GIVEN, Found
from ray_xml.model_words import TrainDocuments
from ray_xml.predict_documents import BLOCK, DocumentSide
from ray_xml.sparse import Csr

MOST_TERMS = BLOCK - 1  # heaviest terms of a text that are left out in turn


class Labels(Protocol):
    """Who searches a model's labels: a ``predict_shard.ModelShard``, or several elsewhere."""

    def search(self, embeddings: np.ndarray, k: int, given: np.ndarray) -> Found: ...

    def scores(self, embeddings: np.ndarray, given: np.ndarray) -> Found: ...


class Term(NamedTuple):
    """A term of the text and what it contributes, in log-odds."""

    term: str
    contribution: float


class Nearest(NamedTuple):
    """A training document like the text.

    Attributes:
        document: its number in the train split.
        name: None where documents have no names.
        similarity: cosine of the cut documents, in (0, 1].
        has_label: whether it has the label that is explained.
    """

    document: int
    name: str | None
    similarity: float
    has_label: bool


class Explanation(NamedTuple):
    """Why a text gets a label.

    Attributes:
        label: its number; name: None where labels have no names.
        score, probability: as predicted.
        log_odds: the score's, z.
        terms: largest contributions first, whichever their sign.
        documents: most alike first.
    """

    label: int
    name: str | None
    score: float
    probability: float
    log_odds: float
    terms: list[Term]
    documents: list[Nearest]


def explain(
    documents: DocumentSide,
    holder: Labels,
    row: Csr,
    terms: Mapping[int, str],
    words: int,
    label: int,
    name: str | None,
    trained_on: TrainDocuments,
    *,
    most: int,
) -> Explanation:
    """Explains one label of one text.

    Args:
        holder: of the labels.
        row: [1, V], from the vectoriser.
        terms: what the row's features are called.
        words: features that are words; the columns behind them, an embedding, are one term.
        name: the label's.
        most: terms and documents to tell at most, each.

    Raises:
        DataSetError: the model does not know the label.
    """
    model = documents.model
    if not 0 <= label < model.num_labels or model.lexical.label_counts[label] == 0:
        raise DataSetError(
            f"label {label}: the model has {model.num_labels:,} labels, numbered from 0, and knows "
            "those that have a training document"
        )
    z, (found,) = contributions(documents, holder, row, terms, words, [label], most=most)
    places, alike = model.neighbors.nearest(model.neighbors.queries(row))
    nearest = []
    for place, similarity in zip(places[:most].tolist(), alike[:most].tolist(), strict=True):
        number = int(trained_on.rows[place])
        has = label in model.neighbors.labels.slice(place, place + 1).packed().ids
        nearest.append(Nearest(number, trained_on.names.get(number), similarity, bool(has)))
    probability = float(model.probability.of(z)[0])
    return Explanation(label, name, float(expit(z[0])), probability, float(z[0]), found, nearest)


def contributions(
    documents: DocumentSide,
    holder: Labels,
    row: Csr,
    terms: Mapping[int, str],
    words: int,
    labels: Sequence[int],
    *,
    most: int,
) -> tuple[np.ndarray, list[list[Term]]]:
    """What a text's terms contribute to labels that the model knows; arguments as above.

    Returns:
        (float32 [m], the log-odds z of each label; its ``most`` largest contributions).
    """
    left_out, rows = _without(row.packed(), words)
    z = log_odds(documents, holder, rows, labels)
    found = []
    for lost in (z[0] - z[1:]).T:
        order = np.argsort(-np.abs(lost), kind="stable")[:most]
        found.append(
            [Term(terms[int(left_out[at])], float(lost[at])) for at in order if lost[at] != 0]
        )
    return z[0], found


def log_odds(
    documents: DocumentSide, holder: Labels, rows: Csr, labels: Sequence[int]
) -> np.ndarray:
    """float32 [n, m]: the score's log-odds of some labels for each document, as it has them where
    they are candidates."""
    question = documents.ask(rows)
    given = np.tile(np.asarray(labels, np.int32), (rows.num_rows, 1))
    found = holder.scores(question.embeddings, given)
    votes = question.answer.votes
    flat, sharp = np.zeros(given.shape, np.float32), np.zeros(given.shape, np.float32)
    for at, label in enumerate(labels):
        hit = votes.labels == label
        flat[:, at] = np.where(hit, votes.flat, np.float32(0)).sum(1)
        sharp[:, at] = np.where(hit, votes.sharp, np.float32(0)).sum(1)
    evidence = Evidence(
        given,
        found.logits[GIVEN],
        found.cosines[GIVEN],
        flat,
        sharp,
        votes.flat_total,
        votes.sharp_total,
        *question.answer.fits(given),
    )
    return documents.model.log_odds(evidence)


def _without(row: Csr, words: int) -> tuple[np.ndarray, Csr]:
    """(features left out int32 [t], rows [1 + t, V]): the row, then the row without each of its
    heaviest words, the others again of unit length, and without its embedding, of which the first
    column is named."""
    assert row.values is not None
    assert row.num_rows == 1
    split = int(np.searchsorted(row.ids, words))
    ids, values = row.ids[:split], row.values[:split]
    dense_ids, dense = row.ids[split:], row.values[split:]
    heaviest = np.sort(np.argsort(-values, kind="stable")[:MOST_TERMS])
    parts, weights = [row.ids], [row.values]
    for at in heaviest:
        rest = np.delete(values, at)
        length = np.float32(np.sqrt(rest.astype(np.float64) @ rest))
        parts.append(np.concatenate([np.delete(ids, at), dense_ids]))
        weights.append(np.concatenate([rest / max(length, np.float32(1e-12)), dense]))
    if len(dense):
        parts.append(ids)
        weights.append(values)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in parts])])
    rows = Csr(offsets, np.concatenate(parts), np.concatenate(weights), row.num_columns)
    return np.concatenate([ids[heaviest], dense_ids[:1]]), rows
