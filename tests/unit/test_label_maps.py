"""Maps from centroids to what training makes of labels."""

from __future__ import annotations

import numpy as np
import pytest

from ray_xml import label_maps
from ray_xml.label_maps import LabelMaps, centroids_of, fit_map
from ray_xml.sparse import Csr


def test_centroids_are_means() -> None:
    z = np.arange(12, dtype=np.float32).reshape(4, 3)
    labels = Csr.from_lists([[0], [0, 1], [1], [1]], 2)
    assert np.allclose(centroids_of(labels, z), [z[:2].mean(0), z[1:].mean(0)])


def test_the_ridge_is_the_best_by_leaving_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against fitting anew without each label."""
    rng = np.random.default_rng(3)
    c = rng.normal(size=(14, 4))
    t = np.concatenate([c @ rng.normal(size=(4, 4)), np.zeros((14, 1))], 1)
    t += 0.5 * rng.normal(size=t.shape)
    found = fit_map(c, t)
    x = np.concatenate([c, np.ones((14, 1))], 1)
    prior = label_maps._prior(c, t)
    mean = np.trace(x.T @ x) / 5

    def solved(rows: np.ndarray, ridge: float) -> np.ndarray:
        system = x[rows].T @ x[rows] + ridge * mean * np.eye(5)
        return prior + np.linalg.solve(system, x[rows].T @ (t[rows] - x[rows] @ prior))

    errors = {}
    for ridge in label_maps._RIDGES:
        rest = [np.delete(np.arange(14), at) for at in range(14)]
        left = [np.square(t[at] - x[at] @ solved(rest[at], ridge)).sum() for at in range(14)]
        errors[ridge] = sum(left)
    best = min(errors, key=lambda ridge: errors[ridge])
    assert np.allclose(found, solved(np.arange(14), best))
    assert len({round(error, 6) for error in errors.values()}) > 3


def test_few_labels_give_a_multiple_of_what_they_are() -> None:
    rng = np.random.default_rng(4)
    c = rng.normal(size=(3, 30))
    maps = LabelMaps.fit(c, 2 * c, np.concatenate([5 * c, np.full((3, 1), -7.0)], 1))
    new = rng.normal(size=(2, 30))
    unit = new / np.linalg.norm(new, axis=1, keepdims=True)
    assert np.allclose(maps.proxies(new), unit, atol=1e-5)
    assert np.allclose(
        maps.rows(new), np.concatenate([5 * new, np.full((2, 1), -7.0)], 1), atol=1e-3
    )
