"""The propensity model against hand-worked numbers, napkinxc and the published constants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ray_xml.metrics import MetricSums
from ray_xml.propensity import (
    DEFAULT_PROPENSITY,
    Propensity,
    propensities,
    propensity_constants,
)


def test_propensity_by_hand() -> None:
    # A = 1/2 and B = 1 make C = (ln N - 1)·√2 and the denominator 1 + C / √(N_l + 1).
    c = (math.log(1000) - 1) * math.sqrt(2)
    expected = [1 / (1 + c), 1 / (1 + c / 2), 1 / (1 + c / 10)]
    got = propensities(np.array([0, 3, 99]), 1000, 0.5, 1.0)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("constants", [(0.55, 1.5), (0.6, 2.6), (0.5, 0.4)])
def test_propensity_matches_napkinxc(constants: tuple[float, float]) -> None:
    reference = pytest.importorskip("napkinxc.metrics")
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 30)) < rng.random(30) ** 3).astype(np.int64)
    labels[:, 7] = 0  # unseen in train
    expected = reference.Jain_et_al_inverse_propensity(csr_matrix(labels), *constants)
    got = propensities(labels.sum(0), len(labels), *constants)
    np.testing.assert_allclose(1 / got, expected, rtol=1e-12)


@pytest.mark.parametrize("documents", [1, 2, 3])
def test_propensity_stays_a_probability_with_few_documents(documents: int) -> None:
    got = propensities(np.arange(documents + 1), documents, 0.5, 0.4)
    assert (got > 0).all()
    assert (got <= 1).all()
    MetricSums(1 / got, np.arange(documents + 1))


def test_propensity_refuses_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="num_documents is 0"):
        propensities(np.array([0]), 0, 0.55, 1.5)
    with pytest.raises(ValueError, match=r"b is 0\.0"):
        propensities(np.array([0]), 10, 0.55, 0.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LF-AmazonTitles-131K", (0.6, 2.6)),
        ("lf_amazontitles_1.3m", (0.6, 2.6)),
        ("Amazon-3M", (0.6, 2.6)),
        ("LF-Wikipedia-500K", (0.5, 0.4)),
        ("LF-WikiTitles-500K", (0.5, 0.4)),
        ("WikiLSHTC-325K", (0.5, 0.4)),
        ("AmazonCat-13K", (0.55, 1.5)),
        ("LF-WikiSeeAlsoTitles-320K", (0.55, 1.5)),
        ("Wiki10-31K", (0.55, 1.5)),
        ("my own", DEFAULT_PROPENSITY),
    ],
)
def test_constants_by_data_set(name: str, expected: tuple[float, float]) -> None:
    assert propensity_constants(name) == Propensity(*expected)
