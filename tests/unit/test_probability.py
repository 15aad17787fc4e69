"""Probabilities: the fit against a general minimiser, thresholds by counting, hostile files."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit

from ray_xml.calibration import FINE, ScoreBins
from ray_xml.errors import ConfigError
from ray_xml.probability import UNFITTED, Probability, fit


def made(seed: int, count: int = 4000, slope: float = 0.6, offset: float = -0.4) -> Any:
    """Log-odds that are too sure of themselves, and the truth."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, count).astype(np.float32)
    return z, rng.random(count) < expit(slope * z + offset)


@pytest.mark.parametrize("seed", range(4))
def test_the_fit_is_the_maximum_of_likelihood(seed: int) -> None:
    z, right = made(seed)
    hits = right.sum()
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(z) - hits + 2))

    def loss(ab: np.ndarray) -> float:
        p = expit(ab[0] * z.astype(np.float64) + ab[1])
        return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).mean())

    expected = scipy.optimize.minimize(loss, [0.5, 0.0], method="Nelder-Mead", tol=1e-10).x
    found = fit(z, right)
    assert (found.slope, found.offset) == pytest.approx(tuple(expected), abs=1e-4)
    assert (found.slope, found.offset) == pytest.approx((0.6, -0.4), abs=0.1)


def test_it_calibrates_other_predictions_of_the_same_kind() -> None:
    found, (z, right) = fit(*made(0, 20_000)), made(1, 20_000)
    before, after = ScoreBins(), ScoreBins()
    before.add(expit(z), right)
    after.add(found.of(z), right)
    assert before.error() > 0.08
    assert after.error() < 0.015


@pytest.mark.parametrize("truth", ["all", "none", "turned", "apart", "one"])
def test_odd_examples_give_a_probability_all_the_same(truth: str) -> None:
    z, _ = made(2, 1 if truth == "one" else 300)
    right = {
        "all": np.ones(len(z), bool),
        "none": np.zeros(len(z), bool),
        "turned": z < 0,
        "apart": z > 0,
        "one": np.ones(len(z), bool),
    }[truth]
    found = fit(z, right)
    p = found.of(np.sort(z))
    assert found.slope >= 0
    assert ((p > 0) & (p < 1)).all()
    assert (np.diff(p) >= 0).all()
    assert p.mean() == pytest.approx(right.mean(), abs=0.01 if len(z) > 1 else 0.4)


def test_no_label_has_no_probability() -> None:
    found = UNFITTED.of(np.array([[-np.inf, 0.0, 40.0]], np.float32))
    assert found.tolist() == [[0.0, 0.5, expit(40.0)]]


@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.7, 0.9])
def test_a_threshold_is_the_lowest_that_holds(wanted: float) -> None:
    z, right = made(3)
    scores = expit(z.astype(np.float64))
    found = fit(z, right).threshold(wanted)

    def precision(threshold: float) -> float:
        above = scores >= threshold
        return float(right[above].mean()) if above.sum() >= 20 else 0.0

    lowest = next(i for i in range(FINE) if precision(i / FINE) >= wanted)
    assert found == lowest / FINE


def test_a_precision_that_was_not_reached_is_told() -> None:
    z, right = made(3)
    with pytest.raises(ConfigError, match=r"precision of 1 was not reached .* highest was 0\.\d"):
        fit(z, right & (np.arange(len(z)) % 2 == 0)).threshold(1.0)
    with pytest.raises(ConfigError, match="not known"):
        fit(z[:5], right[:5]).threshold(0.5)
    with pytest.raises(ConfigError, match="ray-xml calibrate RUN"):
        UNFITTED.threshold(0.5)


def test_it_comes_back_from_json() -> None:
    found = fit(*made(4))
    text = json.dumps({"checkpoint": "abc", **found.as_dict()})
    back = Probability.from_json(text, "abc")
    assert back is not None
    assert (back.slope, back.offset) == (found.slope, found.offset)
    assert np.array_equal(back.counts, found.counts)
    assert np.array_equal(back.right, found.right)
    assert back.counts.sum() == 4000
    assert Probability.from_json(text, "abd") is None


BAD: list[tuple[str, Any]] = [
    ("slope", -1.0),
    ("slope", math.nan),
    ("slope", "1"),
    ("slope", True),
    ("slope", 10**400),
    ("offset", math.inf),
    ("offset", None),
    ("counts", [1] * (FINE - 1)),
    ("counts", {"0": 1}),
    ("counts", [1.5] * FINE),
    ("counts", [2**62] * FINE),
    ("right", [-1] * FINE),
    ("right", [2**39] * FINE),
    ("right", "0" * FINE),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=range(len(BAD)))
def test_json_that_lies_is_refused(name: str, value: Any) -> None:
    tree = {"checkpoint": "abc", **fit(*made(4)).as_dict(), name: value}
    with pytest.raises(ValueError, match=r"probability|whole number|more right"):
        Probability.from_json(json.dumps(tree), "abc")
    del tree[name]
    with pytest.raises(KeyError):
        Probability.from_json(json.dumps(tree), "abc")
    with pytest.raises((TypeError, ValueError)):
        Probability.from_json("[" * 100_000, "abc")
    with pytest.raises(TypeError):
        Probability.from_json("[1]", "abc")
