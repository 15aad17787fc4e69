"""From a label's documents to its proxy and classifier row, without training.

What a label would have got in training is guessed by a linear map from the mean embedding c of its
few documents, one to proxies and one to rows:

    M = argmin Σ_l ‖t_l − Mᵀ [c_l; 1]‖² + λ ‖M − M₀‖²

over labels that have been trained, each with as few documents as the new ones have, so the map also
knows how far so few are to be believed. M₀ is a multiple of the identity, which is all that there
is to say from few labels. λ is the one with the least leave-one-out error,

    e_l = (t_l − Mᵀ x_l) / (1 − x_lᵀ (XᵀX + λ)⁻¹ x_l)

(Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 7.10, for M₀ = 0; an M₀ only
shifts t.)

Shape legend: K labels, D dimensions, T of the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ray_xml.sparse import Csr

_RIDGES = 10.0 ** np.arange(-4, 3)  # of the Gram matrix's mean diagonal


@dataclass(frozen=True)
class LabelMaps:
    """The two maps.

    Attributes:
        proxy: float64 [D + 1, D].
        row: float64 [D + 1, D + 1].
    """

    proxy: np.ndarray
    row: np.ndarray

    @staticmethod
    def fit(centroids: np.ndarray, proxies: np.ndarray, rows: np.ndarray) -> LabelMaps:
        """Fits to trained labels.

        Args:
            centroids: float [K, D], of a few documents of each.
            proxies, rows: float [K, D] and [K, D + 1], what training made of all.
        """
        return LabelMaps(fit_map(centroids, proxies), fit_map(centroids, rows))

    def proxies(self, centroids: np.ndarray) -> np.ndarray:
        """float32 [K, D], of unit length."""
        found = _extended(centroids) @ self.proxy
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12), np.float32)

    def rows(self, centroids: np.ndarray) -> np.ndarray:
        """float32 [K, D + 1]."""
        return np.asarray(_extended(centroids) @ self.row, np.float32)


def centroids_of(labels: Csr, embeddings: np.ndarray) -> np.ndarray:
    """float64 [m, D]: the mean embedding of each label's documents.

    Args:
        labels: [n, m]; each has a document.
        embeddings: float32 [n, D].
    """
    members = labels.to_scipy().T.tocsr()
    sums = members @ embeddings.astype(np.float64)
    return np.asarray(sums / labels.column_counts()[:, None])


def fit_map(centroids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 [D + 1, T]: M, with T at least D; what targets have beyond D is their bias."""
    x, t = _extended(centroids), targets.astype(np.float64)
    prior = _prior(x[:, :-1], t)
    values, vectors = np.linalg.eigh(x.T @ x)
    turned, cross = x @ vectors, vectors.T @ (x.T @ (t - x @ prior))
    best, found = np.inf, prior
    for ridge in _RIDGES * max(float(values.mean()), 1e-12):
        inverse = 1.0 / (np.maximum(values, 0.0) + ridge)
        moved = prior + vectors @ (inverse[:, None] * cross)
        leverage = np.square(turned) @ inverse
        error = float(np.square((t - x @ moved) / (1.0 - leverage)[:, None]).sum())
        if error < best:
            best, found = error, moved
    return found


def _prior(centroids: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """M₀: the scaled identity nearest to the targets, and their mean bias."""
    dim = centroids.shape[1]
    prior = np.zeros((dim + 1, targets.shape[1]))
    scale = float((centroids * targets[:, :dim]).sum()) / max(
        float(np.square(centroids).sum()), 1e-12
    )
    prior[:dim, :dim] = scale * np.eye(dim)
    prior[dim, dim:] = targets[:, dim:].mean(0)
    return prior


def _extended(centroids: np.ndarray) -> np.ndarray:
    wide = centroids.astype(np.float64)
    return np.concatenate([wide, np.ones((len(wide), 1))], axis=1)
