"""Proxy training of label embeddings: one affine map g fitted to all labels.

c_l is the mean embedding of label l's documents. g is fitted so that g(c_l) lies near every one
of them (LightDXML's objective):

    mean over pairs (l, i) of log(1 + ‖g(c_l) − z_i‖²)

The research code's g is Linear(D, H) · Linear(H, D) without an activation, which is one affine
map g(c) = A·[c; 1]. Two ways to fit it, both driven by sums over label ranges, so that the
ranges' number and borders do not change the result:

    irls   iteratively re-weighted least squares: each pair weighs w = 1 / (1 + ‖g(c_l) − z_i‖²),
           the derivative of the log, and the weighted least-squares problem is solved exactly.
           The log majorised by its tangent makes every pass lower the loss (the usual argument
           for M-estimators; Holland & Welsch, 1977). No learning rate.
    adam   stochastic training of the two layers, as in the paper's code. Ranges return the
           gradient of A; the chain rule splits it over the two layers exactly, since g depends
           on them only through A.

Shape legend: D dimensions, H hidden width, A float64 [D, D + 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from ray_xml.config import Section


class ProxyConfig(Section):
    """How label proxies are fitted.

    Attributes:
        solver: ``irls`` (iteratively re-weighted least squares, exact in each pass) or ``adam``
            (gradient steps, as in the paper's code).
        labels: how many labels, about, the map is fitted to at most: it has D·(D + 1) numbers, so
            more tell it nothing new. A hash chooses them.
        passes: irls: passes over all pairs.
        ridge: irls: relative ridge on the Gram matrix's mean diagonal.
        epochs: adam: epochs over all pairs.
        hidden: adam: H, the width between the two layers.
        rate: adam: learning rate.
        batch_size: adam: pairs a step.
    """

    solver: Literal["irls", "adam"] = "irls"
    labels: int = Field(1 << 17, ge=1)
    passes: int = Field(5, ge=1, le=100)
    ridge: float = Field(1e-4, ge=0.0)
    epochs: int = Field(2, ge=1)
    hidden: int = Field(1200, ge=1)
    rate: float = Field(1e-3, gt=0.0)
    batch_size: int = Field(512, ge=1)


@dataclass
class PairSums:
    """Sums over the (label, document) pairs of one range, or of several added up.

    Attributes:
        gram: float64 [D + 1, D + 1], Σ w c̃ c̃ᵀ with c̃ = [c; 1].
        cross: float64 [D + 1, D], Σ w c̃ zᵀ.
        loss: Σ log(1 + ‖g(c) − z‖²) under the map that gave the weights.
        pairs: their number.
    """

    gram: Tensor
    cross: Tensor
    loss: float
    pairs: int

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(
            self.gram + other.gram,
            self.cross + other.cross,
            self.loss + other.loss,
            self.pairs + other.pairs,
        )


class PairSource(Protocol):
    """All label ranges together: what fitting asks of them."""

    def pair_sums(self, affine: Tensor) -> PairSums:
        """Sums over all pairs, weighted under ``affine``."""

    def pair_gradient(self, affine: Tensor, key: int, part: int, parts: int) -> tuple[Tensor, int]:
        """Gradient of the summed loss over the pairs that fall in part ``part`` of ``parts``.

        Returns:
            (float64 [D, D + 1], the number of pairs).
        """


def identity_map(dim: int) -> Tensor:
    """g(c) = c."""
    return torch.eye(dim, dim + 1, dtype=torch.float64)


def fit(source: PairSource, config: ProxyConfig, dim: int, *, seed: int) -> tuple[Tensor, float]:
    """Fits g to all pairs of ``source``.

    Returns:
        (A, float64 [D, D + 1]; the mean loss that the last pass saw).
    """
    if config.solver == "irls":
        return _fit_irls(source, config, dim)
    return _fit_adam(source, config, dim, seed=seed)


def _fit_irls(source: PairSource, config: ProxyConfig, dim: int) -> tuple[Tensor, float]:
    affine, loss = identity_map(dim), math.nan
    for _ in range(config.passes):
        sums = source.pair_sums(affine)
        if sums.pairs == 0:
            return affine, math.nan
        loss = sums.loss / sums.pairs
        ridge = config.ridge * sums.gram.diagonal().mean() + 1e-12
        system = sums.gram + ridge * torch.eye(dim + 1, dtype=torch.float64)
        # The ridge pulls g towards the identity, not towards zero: a label that lies where no
        # other does keeps its mean.
        target = sums.cross + ridge * identity_map(dim).t()
        affine = torch.linalg.solve(system, target).t().contiguous()
    return affine, loss


def _fit_adam(
    source: PairSource, config: ProxyConfig, dim: int, *, seed: int
) -> tuple[Tensor, float]:
    generator = torch.Generator().manual_seed(seed)

    def layer(rows: int, columns: int, inputs: int) -> Tensor:
        bound = inputs**-0.5  # torch.nn.Linear's default range, for weight and bias
        values = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
        return values.mul_(2 * bound).sub_(bound).requires_grad_()

    hidden = config.hidden
    first, first_bias = layer(hidden, dim, dim), layer(hidden, 1, dim)
    second, second_bias = layer(dim, hidden, hidden), layer(dim, 1, hidden)
    optimizer = torch.optim.Adam([first, first_bias, second, second_bias], lr=config.rate)

    def effective() -> Tensor:
        return torch.cat([second @ first, second @ first_bias + second_bias], dim=1)

    start = source.pair_sums(identity_map(dim))
    if start.pairs == 0:
        return identity_map(dim), math.nan
    parts = max(1, round(start.pairs / config.batch_size))
    for epoch in range(config.epochs):
        for part in range(parts):
            affine = effective()
            gradient, pairs = source.pair_gradient(affine.detach(), seed + epoch, part, parts)
            if pairs:
                optimizer.zero_grad()
                torch.autograd.backward(affine, gradient / pairs)
                optimizer.step()
    affine = effective().detach()
    return affine, source.pair_sums(affine).loss / start.pairs
