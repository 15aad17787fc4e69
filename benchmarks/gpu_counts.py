"""What one training step must compute and move, by formula.

Shape legend: B documents of the batch, C candidate labels, D dimensions, U distinct tokens and
T token occurrences of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SHORTLIST = 100  # labels on a document's shortlist
DRAWN = 2048  # labels drawn at random into a batch's candidates


@dataclass(frozen=True)
class Combination:
    """How classifier rows are stored, updated and multiplied."""

    storage: str
    optimizer: str
    product: torch.dtype

    @property
    def weight_bytes(self) -> int:
        return 2 if self.storage == "bfloat16" else 4


@dataclass(frozen=True)
class Counts:
    """One step's arithmetic and traffic.

    Attributes:
        low, full: FLOP of the products in the classifier's product type, and in float32.
        rows: bytes of classifier rows and moments, each read and written once; the rows once more
            for the products, and their float32 gradient written and read.
        scores: bytes of the B x C arrays, as the step passes over them.
        tokens: bytes of the token table's rows and moments, and of the sums over them.
    """

    low: int
    full: int
    rows: int
    scores: int
    tokens: int

    @property
    def flops(self) -> int:
        return self.low + self.full

    @property
    def moved(self) -> int:
        return self.rows + self.scores + self.tokens


def count(
    how: Combination, *, documents: int, candidates: int, dim: int, tokens: int, occurrences: int
) -> Counts:
    """Counts of a step with B = ``documents``, C, D, U = ``tokens`` and T = ``occurrences``."""
    product = 2 * documents * candidates * dim
    # The residual block forwards, and its gradients at its input and at its weight; bags both ways.
    encoder = 3 * 2 * documents * dim * dim + 2 * 2 * occurrences * dim
    # Scores and the rows' gradient are products of the low type, the documents' gradient is not.
    low_is_full = how.product == torch.float32
    return Counts(
        low=0 if low_is_full else 2 * product,
        full=encoder + (3 * product if low_is_full else product),
        rows=candidates * (dim * _bytes_a_weight(how) + _bytes_a_row(how)),
        scores=documents * candidates * score_bytes(how.product),
        # Table and two moments read and written, their gradient written and read; bags read rows.
        tokens=dim * (tokens * (3 * 2 + 2) * 4 + 2 * occurrences * 4),
    )


def _bytes_a_weight(how: Combination) -> int:
    moments = {"adam": 2, "adam_row": 1, "sgd": 0}[how.optimizer]
    return how.weight_bytes * (1 + 2 * (1 + moments)) + 2 * 4


def _bytes_a_row(how: Combination) -> int:
    # The bias and its two moments, and where there is one the row's second moment: float32.
    return 2 * 4 * (3 + (how.optimizer == "adam_row"))


def score_bytes(product: torch.dtype) -> int:
    """Bytes that one of the B x C scores costs: what ``Classifier.step`` reads and writes."""
    size = product.itemsize
    widened = 0 if size == 4 else size + 4  # read in the low type, written in float32
    narrowed = 0 if size == 4 else 4 + size
    return (
        (size + widened)  # the product, written, and its float32 copy
        + 8  # + bias
        + 8  # softplus
        + 4  # the loss reads it
        + 8  # sigmoid
        + 8  # / documents
        + 4  # the documents' gradient reads it
        + (narrowed + size)  # the rows' gradient reads a copy in the low type
        + 4  # the biases' gradient reads it
    )


def expected_candidates(labels: int, documents: int) -> float:
    """Mean distinct labels among uniformly drawn shortlists and the labels drawn at random.

    Uniform shortlists overlap least, so this is what a step costs at most.
    """
    draws = documents * SHORTLIST + DRAWN
    return float(labels * -torch.expm1(draws * torch.log1p(torch.tensor(-1.0 / labels).double())))
