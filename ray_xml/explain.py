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

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from ray_xml.blend import Evidence
from ray_xml.errors import DataSetError
from ray_xml.label_search import GIVEN
from ray_xml.model_words import TrainDocuments
from ray_xml.predict_documents import BLOCK, DocumentSide
from ray_xml.predict_shard import ModelShard
from ray_xml.sparse import Csr

MOST_TERMS = BLOCK - 1  # heaviest terms of a text that are left out in turn


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
    shard: ModelShard,
    row: Csr,
    terms: Mapping[int, str],
    label: int,
    name: str | None,
    trained_on: TrainDocuments,
    *,
    most: int,
) -> Explanation:
    """Explains one label of one text.

    Args:
        row: [1, V], from the vectoriser.
        terms: what the row's features are called.
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
    left_out, rows = _without(row.packed())
    z = log_odds(documents, shard, rows, label)
    lost = z[0] - z[1:]
    order = np.argsort(-np.abs(lost), kind="stable")[:most]
    found = [Term(terms[int(left_out[at])], float(lost[at])) for at in order if lost[at] != 0]
    places, alike = model.neighbors.nearest(model.neighbors.queries(row))
    nearest = []
    for place, similarity in zip(places[:most].tolist(), alike[:most].tolist(), strict=True):
        number = int(trained_on.rows[place])
        has = label in model.neighbors.labels.slice(place, place + 1).packed().ids
        nearest.append(Nearest(number, trained_on.names.get(number), similarity, bool(has)))
    probability = float(model.probability.of(z[:1])[0])
    return Explanation(label, name, float(expit(z[0])), probability, float(z[0]), found, nearest)


def log_odds(documents: DocumentSide, shard: ModelShard, rows: Csr, label: int) -> np.ndarray:
    """float32 [n]: the score's log-odds of one label for each document, as it has them where it is
    a candidate."""
    question = documents.ask(rows)
    given = np.full((rows.num_rows, 1), label, np.int32)
    found = shard.scores(question.embeddings, given)
    votes = question.answer.votes
    hit = votes.labels == label
    evidence = Evidence(
        given,
        found.logits[GIVEN],
        found.cosines[GIVEN],
        np.where(hit, votes.flat, np.float32(0)).sum(1, keepdims=True),
        np.where(hit, votes.sharp, np.float32(0)).sum(1, keepdims=True),
        votes.flat_total,
        votes.sharp_total,
        *question.answer.fits(given),
    )
    return documents.model.log_odds(evidence)[:, 0]


def _without(row: Csr) -> tuple[np.ndarray, Csr]:
    """(features left out int32 [t], rows [1 + t, V]): the row, then the row without each of its
    heaviest terms, again of unit length."""
    assert row.values is not None
    assert row.num_rows == 1
    heaviest = np.sort(np.argsort(-row.values, kind="stable")[:MOST_TERMS])
    parts, values = [row.ids], [row.values]
    for at in heaviest:
        rest = np.delete(row.values, at)
        length = np.float32(np.sqrt(rest.astype(np.float64) @ rest))
        parts.append(np.delete(row.ids, at))
        values.append(rest / max(length, np.float32(1e-12)))
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in parts])])
    rows = Csr(offsets, np.concatenate(parts), np.concatenate(values), row.num_columns)
    return row.ids[heaviest], rows
