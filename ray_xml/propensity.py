"""How likely a label that holds was written down: the propensity model of Jain et al. (KDD 2016).

Source: Jain, Prabhu, Varma, "Extreme Multi-label Loss Functions for Recommendation, Tagging,
Ranking & Other Missing Label Applications", KDD 2016.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Propensity(NamedTuple):
    """The constants A and B of the propensity model of Jain et al. (KDD 2016)."""

    a: float
    b: float


DEFAULT_PROPENSITY = Propensity(0.55, 1.5)
_AMAZON = Propensity(0.6, 2.6)
_WIKIPEDIA = Propensity(0.5, 0.4)

# Keys as `propensity_constants` normalises names. AmazonCat-13K and the smaller Wikipedia sets
# (Wiki10-31K, WikiSeeAlso) are absent on purpose: the literature scores them with the default.
_SIZES = ("131k", "300k", "670k", "13m", "3m")  # 13m: AmazonTitles-1.3M
_WIKIPEDIAS = ("wikipedia500k", "wikipedialarge500k", "wikititles500k", "wikilshtc325k")
PROPENSITY_BY_DATA_SET: Mapping[str, Propensity] = {
    **dict.fromkeys((f"amazon{size}" for size in _SIZES), _AMAZON),
    **dict.fromkeys((f"amazontitles{size}" for size in _SIZES), _AMAZON),
    **dict.fromkeys(_WIKIPEDIAS, _WIKIPEDIA),
}


def propensity_constants(data_set: str) -> Propensity:
    """A and B for a data set of the Extreme Classification Repository, else the default.

    Case, punctuation and a leading ``LF-`` or ``MM-`` do not matter: "LF-AmazonTitles-131K" and
    "lf_amazontitles_131k" are the same set.
    """
    name = re.sub(r"[^a-z0-9]", "", data_set.lower())
    name = name.removeprefix("lf").removeprefix("mm")
    return PROPENSITY_BY_DATA_SET.get(name, DEFAULT_PROPENSITY)


def propensities(label_counts: np.ndarray, num_documents: int, a: float, b: float) -> np.ndarray:
    """The probability that a label that holds was written down.

    p_l = 1 / (1 + C·exp(-A·log(N_l + B))), C = (log N - 1)(B + 1)^A (Jain et al., KDD 2016).
    C is taken as 0 where it would be negative (N < 3), so that p_l never exceeds 1.

    Args:
        label_counts: int64 [L], N_l: train documents of each label; 0 for an unseen label.
        num_documents: N, the number of train documents.
        a, b: the constants, see ``propensity_constants``.

    Returns:
        float64 [L], in (0, 1]. ``MetricSums`` takes the inverse, ``1 / propensities(...)``.
    """
    if num_documents < 1:
        raise ValueError(f"num_documents is {num_documents}; it must be at least 1")
    if b <= 0:
        raise ValueError(f"b is {b}; it must be above 0, or an unseen label has propensity 0")
    c = max(np.log(num_documents) - 1.0, 0.0) * (b + 1.0) ** a
    counts = np.asarray(label_counts, np.float64)
    result: np.ndarray = 1.0 / (1.0 + c * np.exp(-a * np.log(counts + b)))
    return result
