"""Labels that a model got after it was trained, and the score of theirs.

What is known of such a label says other things than of one that was there from the start: its
documents are few whatever its frequency, its classifier row was not trained, and the encoder never
saw it. So its candidates have a score of their own, of the same kind (see ``blend``) and fitted to
labels in the same position (see ``label_trial``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ray_xml.blend import Blend, Evidence
from ray_xml.json_text import MOST, count_of


@dataclass(frozen=True)
class AddedLabels:
    """Labels added together.

    Attributes:
        first: the number of the first of them; they end where the next ones begin.
        documents: examples that came with them, the last of the sparse channel's documents.
        blend: their score.
    """

    first: int
    documents: int
    blend: Blend

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"first": self.first, "documents": self.documents, "blend": self.blend.as_dict()}

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> AddedLabels:
        """The inverse of ``as_dict``.

        Raises:
            KeyError: something is missing.
            TypeError, ValueError: something is of a wrong type, length or size.
        """
        first, documents = (count_of(tree[name], MOST) for name in ("first", "documents"))
        return AddedLabels(first, documents, Blend.from_dict(tree["blend"]))


def from_list(trees: Sequence[Mapping[str, Any]]) -> tuple[AddedLabels, ...]:
    """Several, from JSON; errors are those of ``AddedLabels.from_dict``, and ValueError where they
    do not follow each other."""
    found = tuple(AddedLabels.from_dict(tree) for tree in trees)
    if any(one.first >= other.first for one, other in pairwise(found)):
        raise ValueError("added labels do not follow each other")
    return found


def log_odds(
    blend: Blend, added: Sequence[AddedLabels], evidence: Evidence, counts: np.ndarray
) -> np.ndarray:
    """float32 [n, m]: ``Blend.log_odds``, of added labels under their own score.

    Args:
        added: by ascending first label.
        counts: [L] training documents of each label.
    """
    if not added:
        return blend.log_odds(evidence, counts)
    x = evidence.features(counts)
    z = blend.log_odds_of(x)
    for one in added:
        theirs = evidence.labels >= one.first
        z[theirs] = one.blend.log_odds_of(x[theirs])
    return z
