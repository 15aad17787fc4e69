"""Reliability, calibration error and thresholds against sums over the predictions one by one."""

from __future__ import annotations

import numpy as np
import pytest

from ray_xml.calibration import BINS, FINE, ScoreBins


def made(seed: int, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.5, 1.5, count).astype(np.float32)
    scores[:3] = 0.0, 1.0, 0.5
    return scores, rng.random(count) < scores**1.3


def filled(scores: np.ndarray, right: np.ndarray) -> ScoreBins:
    bins = ScoreBins()
    for part in range(0, len(scores), 700):
        bins.add(scores[part : part + 700], right[part : part + 700])
    return bins


def slow_bins(scores: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    found = []
    for number in range(BINS):
        own = [
            (float(s), bool(r))
            for s, r in zip(scores, right, strict=True)
            if number / BINS <= float(s) < (number + 1) / BINS or (number == BINS - 1 and s == 1)
        ]
        if own:
            mean = sum(s for s, _ in own) / len(own)
            found.append((mean, sum(r for _, r in own) / len(own), len(own)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_bins_and_error_are_those_of_a_loop(seed: int) -> None:
    scores, right = made(seed)
    bins, slow = filled(scores, right), slow_bins(scores, right)
    for one, other in zip(bins.reliability(), slow, strict=True):
        assert one == pytest.approx(other)
    error = sum(n / len(scores) * abs(share - mean) for mean, share, n in slow)
    assert bins.error() == pytest.approx(error)
    assert bins.error() > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_are_those_of_a_loop(seed: int) -> None:
    scores, right = made(seed)
    thresholds, given, correct = filled(scores, right).thresholds()
    assert len(thresholds) == FINE
    for place in (0, 1, 137, 500, 999):
        at = thresholds[place]
        above = scores.astype(np.float64) >= at
        assert given[place] == above.sum()
        assert correct[place] == (above & right).sum()


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not() -> None:
    assert filled(np.ones(9, np.float32), np.ones(9, bool)).error() == 0.0
    assert filled(np.ones(9, np.float32), np.zeros(9, bool)).error() == 1.0
    assert ScoreBins().error() == 0.0
    assert ScoreBins().reliability() == []
