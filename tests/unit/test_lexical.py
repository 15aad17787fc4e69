"""The sparse channel as a whole is its two parts over the same cut documents."""

from __future__ import annotations

import numpy as np
import pytest
from made import random_csr

from ray_xml.label_words import LabelWords
from ray_xml.lexical import Lexical
from ray_xml.neighbors import Neighbors, NeighborsConfig
from ray_xml.sparse import Csr
from ray_xml.votes import Votes

FEATURES, LABELS = 25, 13


def documents(seed: int, rows: int) -> Csr:
    """Binary, so that idf weights are used."""
    return random_csr(np.random.default_rng(seed), rows, FEATURES, 0.3, binary=True)


def labels() -> Csr:
    return random_csr(np.random.default_rng(2), 40, LABELS, 0.2, binary=True)


@pytest.mark.parametrize("size", [0, 7])
def test_an_answer_is_votes_and_fits(size: int) -> None:
    config = NeighborsConfig(size=size, labels=5, terms=6, label_terms=4)
    neighbors = Neighbors.build(config, documents(0, 40), labels())
    lexical, asked = Lexical.build(neighbors), documents(1, 11)
    answer, queries = lexical.ask(asked), neighbors.queries(asked)
    assert (neighbors.weights is not None) == (size > 0)
    votes = neighbors.vote(queries)
    for name in Votes.__dataclass_fields__:
        assert np.array_equal(getattr(answer.votes, name), getattr(votes, name)), name
    listed = np.random.default_rng(3).integers(-1, LABELS, (11, 6), dtype=np.int32)
    words = LabelWords.build(neighbors.documents, neighbors.labels, 4)
    for ours, theirs in zip(answer.fits(listed), words.scores(queries, listed), strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.any() == (size > 0)
    counts = np.bincount(labels().ids, minlength=LABELS)
    assert np.array_equal(lexical.label_counts, counts)
    alone = lexical.ask(asked.slice(3, 4))
    assert np.array_equal(alone.votes.labels[0], votes.labels[3])
    for ours, theirs in zip(alone.fits(listed[3:4]), answer.fits(listed), strict=True):
        np.testing.assert_allclose(ours[0], theirs[3], rtol=1e-5)


def test_parts_of_other_widths_are_refused() -> None:
    neighbors = Neighbors.build(NeighborsConfig(), documents(0, 40), labels())
    fewer = Csr.from_lists([[] for _ in range(40)], LABELS - 1)
    words = LabelWords.build(neighbors.documents, fewer, 4)
    with pytest.raises(ValueError, match="words of 12 labels and 25 features, neighbours of 13"):
        Lexical(neighbors, words)
