"""Batches: every document once an epoch, the same random labels on every worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ray_xml.batches import BatchMaker, draws
from ray_xml.partition import epoch_order
from ray_xml.sparse import Csr

DOCUMENTS, TOKENS, LABELS = 23, 40, 30


def maker(
    label_range: tuple[int, int], *, workers: int = 1, drawn: int = 5, negatives: str = "union"
) -> BatchMaker:
    random = np.random.default_rng(0)
    tokens = [sorted(random.choice(TOKENS, 4, replace=False).tolist()) for _ in range(DOCUMENTS)]
    labels = [sorted(random.choice(LABELS, 2, replace=False).tolist()) for _ in range(DOCUMENTS)]
    return BatchMaker(
        Csr.from_lists(tokens, TOKENS, [[1.0] * 4] * DOCUMENTS),
        Csr.from_lists(labels, LABELS),
        label_range,
        workers,
        negatives,
        torch.device("cpu"),
        drawn,
        seed=1,
    )


SHORTLISTS = np.random.default_rng(1).integers(0, LABELS, (DOCUMENTS, 3), dtype=np.int32)


def cut(
    order: np.ndarray, shortlists: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Batches of five documents with their shortlists."""
    for start in range(0, len(order), 5):
        batch = order[start : start + 5]
        yield batch, None if shortlists is None else shortlists[batch]


def candidate_labels(
    made: BatchMaker, epoch: int, shortlists: np.ndarray | None = SHORTLISTS
) -> list[set[int]]:
    low, high = made.label_range
    order = epoch_order(DOCUMENTS, seed=1, epoch=epoch)
    batches = made.epoch(cut(order, shortlists), epoch)
    everything = list(range(low, high))
    return [
        set(everything if b.candidates.rows is None else (b.candidates.rows + low).tolist())
        for b in batches
    ]


def test_every_document_comes_once_and_the_last_batch_is_padded() -> None:
    order = epoch_order(DOCUMENTS, seed=1, epoch=0)
    batches = list(maker((0, LABELS), workers=2).epoch(cut(order, SHORTLISTS), 0))
    assert [batch.documents for batch in batches] == [5, 5, 5, 5, 3]
    assert [len(batch.tokens.documents) for batch in batches] == [6, 6, 6, 6, 4]
    seen = [n for b in batches for n in b.tokens.documents[: b.documents].tolist()]
    assert seen == order.tolist()


def test_candidates_of_ranges_together_are_those_of_one_worker() -> None:
    whole = candidate_labels(maker((0, LABELS)), epoch=3)
    low, high = candidate_labels(maker((0, 11)), 3), candidate_labels(maker((11, LABELS)), 3)
    assert [a | b for a, b in zip(low, high, strict=True)] == whole


def testdraws_differ_by_batch_and_epoch_and_repeat() -> None:
    withdraws, without = maker((0, LABELS), drawn=6), maker((0, LABELS), drawn=0)

    def draws(epoch: int) -> list[frozenset[int]]:
        pairs = zip(
            candidate_labels(withdraws, epoch), candidate_labels(without, epoch), strict=True
        )
        return [frozenset(more - fewer) for more, fewer in pairs]

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)
    assert len(set(draws(0))) > 1


@pytest.mark.parametrize("drawn", [0, 5])
def test_random_negatives_are_the_batch_s_own_labels_and_those_drawn(drawn: int) -> None:
    made = maker((0, LABELS), drawn=drawn, negatives="random")
    found = candidate_labels(made, 2, None)
    order = epoch_order(DOCUMENTS, seed=1, epoch=2)
    for start, labels in zip(range(0, DOCUMENTS, 5), found, strict=True):
        own = set(made.labels.take(order[start : start + 5]).ids.tolist())
        assert labels >= own
        extra = labels - own
        batch = made.labels.take(order[start : start + 5])
        no_list = np.zeros((5, 0), np.int32)
        assert len(extra) <= drawn
        assert labels == own | set(
            () if drawn == 0 else made._drawn((2, start), no_list, batch).tolist()
        )
    # The same labels are drawn as beside shortlists.
    union = candidate_labels(maker((0, LABELS), drawn=drawn), 2)
    assert all(more >= fewer for more, fewer in zip(union, found, strict=True))
    assert union != found


def test_random_negatives_over_ranges_are_those_of_one_worker() -> None:
    parts = [(0, LABELS), (0, 11), (11, LABELS)]
    whole, low, high = (
        candidate_labels(maker(part, negatives="random"), 3, None) for part in parts
    )
    assert [a | b for a, b in zip(low, high, strict=True)] == whole


def test_every_candidate_is_everybody_s_negative_but_with_shortlist() -> None:
    order = epoch_order(DOCUMENTS, seed=1, epoch=0)
    for negatives, lists in (("random", None), ("union", SHORTLISTS), ("shortlist", SHORTLISTS)):
        made = maker((0, LABELS), negatives=negatives)
        masks = [batch.candidates.mask is None for batch in made.epoch(cut(order, lists), 0)]
        assert masks == [negatives != "shortlist"] * 5


def test_as_manydraws_as_labels_are_all_labels() -> None:
    for labels in candidate_labels(maker((0, LABELS), drawn=LABELS), 0):
        assert labels == set(range(LABELS))


@pytest.mark.parametrize("wanted", [12, 20, 30, 40])
def test_batches_are_filled_up_to_a_number_of_candidates(wanted: int) -> None:
    filled = dataclasses.replace(maker((0, LABELS), drawn=0), candidates=wanted)
    low = dataclasses.replace(maker((0, 11), drawn=0), candidates=wanted)
    counts, own = [], []
    for epoch in range(20):
        found, bare = candidate_labels(filled, epoch), candidate_labels(maker((0, LABELS)), epoch)
        counts += [len(labels) for labels in found]
        own += [len(labels) for labels in bare]
        # Every worker draws alike.
        assert candidate_labels(low, epoch) == [{n for n in labels if n < 11} for labels in found]
    if wanted >= LABELS:
        assert set(counts) == {LABELS}
    elif wanted > max(own):
        assert abs(np.mean(counts) - wanted) < 1
    else:
        assert min(counts) <= wanted <= max(counts)


def test_what_is_there_already_is_not_drawn_again() -> None:
    assert draws(10, 10, 1000) == draws(10, 12, 1000) == 0
    assert draws(1000, 10, 1000) == draws(2000, 10, 1000) == 1000
    rng = np.random.default_rng(0)
    for wanted, there in ((300, 100), (900, 0), (999, 500)):
        reached = [
            len({*range(there), *rng.integers(1000, size=draws(wanted, there, 1000)).tolist()})
            for _ in range(50)
        ]
        assert abs(np.mean(reached) - wanted) < 3
