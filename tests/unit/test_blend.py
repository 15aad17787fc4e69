"""The fitted score: its features by a loop, its fit against a general minimiser."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from threading import Barrier, Thread

import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit

from ray_xml import blend
from ray_xml.blend import DEFAULT, NAMES, WIDTH, Blend, Evidence, fit

Example = tuple[np.ndarray, np.ndarray]
SIZE = 1 + WIDTH + WIDTH * (WIDTH + 1) // 2


def random_evidence(seed: int, n: int = 6, m: int = 9, labels: int = 30) -> Evidence:
    """Some without a label, some nobody votes for, extreme logits, a document without votes."""
    rng = np.random.default_rng(seed)
    voted = rng.random((n, m)) < 0.6
    voted[0] = False
    flat = np.where(voted, rng.random((n, m)), 0).astype(np.float32)
    logits = rng.standard_normal((n, m)) * 10 ** rng.uniform(-1, 4, (n, m))
    return Evidence(
        rng.integers(-1, labels, (n, m), dtype=np.int32),
        logits.astype(np.float32),
        rng.uniform(-1, 1, (n, m)).astype(np.float32),
        flat,
        flat**2,
        np.where(voted.any(1), 10, 0).astype(np.float32),
        np.where(voted.any(1), 4, 0).astype(np.float32),
        rng.random((n, m), np.float32) * (rng.random((n, m)) < 0.7),
        rng.random((n, m), np.float32) * (rng.random((n, m)) < 0.7),
    )


def counts(labels: int = 30) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 50, labels)


def slow_features(e: Evidence, row: int, place: int) -> dict[str, float]:
    def at(values: np.ndarray) -> float:
        return float(values[row, place])

    def share(votes: np.ndarray, total: np.ndarray) -> float:
        return at(votes) / float(total[row]) if total[row] > 0 else 0.0

    flat, sharp = share(e.flat, e.flat_total), share(e.sharp, e.sharp_total)
    return {
        "logit": max(-20.0, min(20.0, at(e.logits))),
        "cosine": at(e.cosines),
        "share of flat votes": flat,
        "share of sharp votes": sharp,
        "log share of flat votes": math.log(flat + 1e-3),
        "log share of sharp votes": math.log(sharp + 1e-3),
        "log flat votes": math.log(at(e.flat) + 1e-3),
        "centroid": at(e.centroid),
        "log centroid": math.log(at(e.centroid) + 1e-3),
        "association": at(e.association),
        "log association": math.log(at(e.association) + 1e-3),
        "log count": math.log(max(1, int(counts()[e.labels[row, place]]))),
    }


def test_features_against_a_loop() -> None:
    evidence = random_evidence(0)
    found = evidence.features(counts())
    assert found.dtype == np.float32
    assert found.shape == (*evidence.labels.shape, WIDTH)
    assert np.isfinite(found).all()
    for row, place in np.ndindex(*evidence.labels.shape):
        expected = slow_features(evidence, row, place)
        assert tuple(expected) == NAMES
        np.testing.assert_allclose(found[row, place], list(expected.values()), rtol=1e-4, atol=1e-6)


def random_blend(seed: int) -> Blend:
    rng = np.random.default_rng(seed)
    return Blend(
        rng.standard_normal(WIDTH), rng.uniform(0.1, 1, WIDTH), 0.1 * rng.standard_normal(SIZE)
    )


@pytest.mark.parametrize("made", [DEFAULT, random_blend(1)])
def test_log_odds_against_a_loop(made: Blend) -> None:
    evidence = random_evidence(1)
    found = made.log_odds(evidence, counts())
    assert found.dtype == np.float32
    for row, place in np.ndindex(*evidence.labels.shape):
        values = slow_features(evidence, row, place).values()
        scaled = [(v - m) * s for v, m, s in zip(values, made.mean, made.scale, strict=True)]
        x = [max(-8.0, min(8.0, one)) for one in scaled]
        terms = [1.0, *x, *(x[i] * x[j] for i in range(WIDTH) for j in range(i, WIDTH))]
        expected = math.fsum(w * t for w, t in zip(made.weights, terms, strict=True))
        assert found[row, place] == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_equal_evidence_has_equal_scores_wherever_it_stands() -> None:
    one = random_evidence(2, n=1, m=1)
    many = Evidence(
        *(
            np.tile(getattr(one, name), (5,) if "total" in name else (5, 37))
            for name in Evidence.__dataclass_fields__
        )
    )
    found = random_blend(3).log_odds(many, counts())
    assert len(np.unique(found)) == 1


def examples(
    seed: int, sizes: tuple[int, ...] = (400, 0, 250), weights: np.ndarray | None = None
) -> list[Example]:
    """Blocks whose truth follows ``weights`` over standard normal features and their products."""
    rng = np.random.default_rng(seed)
    if weights is None:
        weights = np.zeros(SIZE)
        weights[: 1 + WIDTH] = np.linspace(-1.0, 1.0, 1 + WIDTH)
    blocks = []
    for size in sizes:
        x = rng.standard_normal((size, WIDTH)).astype(np.float32)
        blocks.append((x, rng.random(size) < expit(expanded(x) @ weights)))
    return blocks


def expanded(x: np.ndarray) -> np.ndarray:
    columns = [np.ones(len(x)), *x.T]
    columns += [x[:, i] * x[:, j] for i in range(WIDTH) for j in range(i, WIDTH)]
    return np.stack(columns, 1).astype(np.float64)


def whole(blocks: list[Example]) -> Example:
    return np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks])


def penalised(weights: np.ndarray, wide: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Negative log likelihood with the fit's ridge on everything but the constant."""
    product = wide @ weights
    rest = np.append(0.0, weights[1:])
    loss = np.sum(np.logaddexp(0, product) - y * product) + 0.5 * np.sum(rest**2)
    return float(loss), wide.T @ (expit(product) - y) + rest


@pytest.mark.parametrize("rows", [16384, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fit_is_the_minimum(seed: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blend, "_ROWS", rows)
    blocks = examples(seed)
    found = fit(blocks)
    x, y = whole(blocks)
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0), atol=1e-9)
    np.testing.assert_allclose(found.scale, 1 / x.astype(np.float64).std(0), rtol=1e-6)
    wide = expanded((x.astype(np.float64) - found.mean) * found.scale)
    best = scipy.optimize.minimize(
        penalised, np.zeros(SIZE), (wide, y), "BFGS", jac=True, options={"gtol": 1e-6}
    )
    np.testing.assert_allclose(found.weights, best.x, atol=2e-3)
    assert penalised(found.weights, wide, y)[0] <= best.fun * (1 + 1e-6)


def test_the_fit_recovers_what_the_truth_follows() -> None:
    rng = np.random.default_rng(4)
    weights = np.zeros(SIZE)
    weights[: 1 + WIDTH] = rng.uniform(-1, 1, 1 + WIDTH)
    product = blend._PAIRS[0].tolist().index(2) + 3  # of features 2 and 5
    assert (blend._PAIRS[0][product], blend._PAIRS[1][product]) == (2, 5)
    weights[1 + WIDTH + product] = 1.5
    found = fit(examples(5, (60_000,), weights))
    # Features are standard normal, so scaling barely changes them.
    np.testing.assert_allclose(found.weights, weights, atol=0.12)
    assert np.abs(found.weights - weights).mean() < 0.03


def test_scores_are_probabilities() -> None:
    """Among candidates with a score near s, a share s is true."""
    found = fit(examples(6, (20_000,)))
    ((x, y),) = examples(7, (20_000,))
    scores = expit(found.log_odds_of(x[None])[0])
    for low in np.arange(0, 1, 0.2):
        near = (scores >= low) & (scores < low + 0.2)
        assert near.sum() > 500
        assert y[near].mean() == pytest.approx(scores[near].mean(), abs=0.03)


class Workers:
    """Runs ``fit`` on threads that sum over each other as workers do."""

    def __init__(self, size: int) -> None:
        self._size, self._barrier = size, Barrier(size, timeout=30)
        self._vectors: list[np.ndarray] = [np.zeros(0)] * size

    def add_up(self, rank: int) -> Callable[[np.ndarray], np.ndarray]:
        def added(own: np.ndarray) -> np.ndarray:
            self._vectors[rank] = own
            self._barrier.wait()
            total = np.sum(self._vectors, 0)
            self._barrier.wait()
            return total

        return added

    def fit(self, parts: list[list[Example]]) -> list[Blend]:
        found: list[Blend | None] = [None] * self._size

        def work(rank: int) -> None:
            found[rank] = fit(parts[rank], self.add_up(rank))

        threads = [Thread(target=work, args=(rank,)) for rank in range(self._size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [one for one in found if one is not None]


def test_blocks_may_lie_on_any_worker() -> None:
    blocks = examples(8, (300, 120, 0, 230, 77))
    alone = fit(blocks)
    for parts in ([blocks[:2], blocks[2:]], [blocks[::2], [], blocks[1::2]]):
        found = Workers(len(parts)).fit(parts)
        assert len(found) == len(parts)
        for one in found:
            assert np.array_equal(one.weights, found[0].weights)
            np.testing.assert_allclose(one.weights, alone.weights, atol=1e-6)
            np.testing.assert_allclose(one.mean, alone.mean, atol=1e-12)


@pytest.mark.parametrize("true", [False, True])
def test_all_candidates_alike(true: bool) -> None:
    ((x, y),) = examples(0, (500,))
    found = fit([(x, np.full(len(y), true))])
    assert np.isfinite(found.weights).all()
    scores = expit(found.log_odds_of(x[None])[0])
    assert (scores > 0.9 if true else scores < 0.1).all()


@pytest.mark.parametrize("blocks", [[], [(np.zeros((0, WIDTH), np.float32), np.zeros(0, bool))]])
def test_no_candidates(blocks: list[Example]) -> None:
    found = fit(blocks)
    assert not found.weights.any()
    assert np.isfinite(found.scale).all()


def test_a_feature_that_never_varies_has_no_say() -> None:
    blocks = examples(1)
    for x, _ in blocks:
        x[:, 3] = np.float32(0.7)
    found = fit(blocks)
    assert np.isfinite(found.weights).all()
    x, _ = whole(blocks)
    assert found.weights[1 + 3] == pytest.approx(0, abs=1e-6)
    products = (blend._PAIRS[0] == 3) | (blend._PAIRS[1] == 3)
    np.testing.assert_allclose(found.weights[1 + WIDTH :][products], 0, atol=1e-6)
    # Nor do copies of a feature or a feature that tells all keep it from ending.
    for x, y in blocks:
        x[:, 4] = x[:, 5]
        x[:, 6] = y
    found = fit(blocks)
    assert np.isfinite(found.weights).all()
    x, y = whole(blocks)
    assert ((found.log_odds_of(x[None])[0] > 0) == y).all()


def test_large_features_do_not_overflow() -> None:
    ((x, y),) = examples(2, (500,))
    x[:, 0] = 20 * np.sign(x[:, 0])
    x[:, 1] *= 1e4
    found = fit([(x, y)])
    assert np.isfinite(found.log_odds_of(x[None])).all()
    assert ((found.log_odds_of(x[None])[0] > 0) == y).mean() > 0.7


@pytest.mark.parametrize("made", [DEFAULT, random_blend(2)])
def test_a_dict_is_read_back(made: Blend) -> None:
    again = Blend.from_dict(json.loads(json.dumps(made.as_dict())))
    for name in ("mean", "scale", "weights"):
        assert np.array_equal(getattr(again, name), getattr(made, name))


def test_a_wrong_dict_is_refused() -> None:
    good = DEFAULT.as_dict()
    for name in good:
        with pytest.raises(KeyError, match=name):
            Blend.from_dict({key: value for key, value in good.items() if key != name})
        for wrong in (good[name][1:], [*good[name][1:], math.nan], [good[name]]):
            with pytest.raises(ValueError, match=f"the score's {name} should be"):
                Blend.from_dict({**good, name: wrong})  # type: ignore[dict-item]


@pytest.mark.parametrize("shape", [(1, 100), (3, 7), (90, 101), (1, 0), (0, 5)])
def test_scores_are_added_up_in_one_order(shape: tuple[int, int]) -> None:
    """Bit for bit, in float32: Σ_i (w_i + Σ_{j≥i} w_ij x_j) x_i, candidate by candidate."""
    rng = np.random.default_rng(8)
    numbers = Blend(rng.normal(size=WIDTH), rng.normal(size=WIDTH), rng.normal(size=SIZE))
    features = rng.normal(0, 4, (*shape, WIDTH)).astype(np.float32)
    found = numbers.log_odds_of(features)
    assert found.shape == shape
    mean, scale, weights = (
        one.astype(np.float32) for one in (numbers.mean, numbers.scale, numbers.weights)
    )
    x = np.clip((features - mean) * scale, np.float32(-8), np.float32(8))
    expected = np.full(shape, weights[0])
    products = iter(weights[1 + WIDTH :])
    for i in range(WIDTH):
        slope = np.full(shape, weights[1 + i])
        for j in range(i, WIDTH):
            slope = slope + next(products) * x[..., j]
        expected = expected + slope * x[..., i]
    assert np.array_equal(found.view(np.int32), expected.view(np.int32))
