"""The document encoder: a weighted bag of token embeddings and one residual block.

    u = Σ_t x_t e_t                          bag of tokens
    v = Dropout(ReLU(u))
    z = v + Dropout(ReLU(SN(W) v + b))       W starts as the identity, SN is spectral normalisation

after Astec / LightDXML (Dahiya et al., "DeepXML", WSDM 2021); spectral normalisation after Miyato
et al., ICLR 2018. The token table is cut by *columns* over the workers: each sums its columns for
every document of the global batch, and the columns change hands for rows (``exchange``). So a
step moves 2·B·D numbers however many tokens the documents have, and each worker keeps and
updates only its share of the table.

Shape legend: V tokens, D dimensions, d columns of this rank, B documents of the global batch,
b documents of this rank, U distinct tokens of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ray_xml.bags import Bags, bags_of, sum_bags, transposed_bags
from ray_xml.config import Section
from ray_xml.exchange import Exchange
from ray_xml.hashing import dropout_factors, stream_key
from ray_xml.partition import even
from ray_xml.row_adam import RowAdam
from ray_xml.sparse import Csr
from ray_xml.transfer import placed


class EncoderConfig(Section):
    """Size and start of the encoder.

    Attributes:
        dim: D, the width of document and label embeddings.
        dropout: probability of dropping a unit in both places.
        tokens: where the token table comes from: ``svd`` of the training matrix, ``random``,
            or the path of an .npy file, float [V, D]. ``auto`` is ``random`` where labels have
            fewer than 20 documents each, on average, else ``svd``.
        token_scale: factor on the token table; None is 4 for ``random`` tokens, else 1.
        rate_factor: the encoder's learning rate over ``training.rate``. Below 1 where labels have
            few documents each: training then bends the space away from what words alone say.
            None is 0.05 there, else 1.
    """

    dim: int = Field(300, ge=2, le=8192)
    dropout: float = Field(0.3, ge=0.0, lt=1.0)
    tokens: str = "svd"
    token_scale: float | None = Field(1.0, gt=0.0)
    rate_factor: float | None = Field(1.0, ge=0.0)

    @property
    def slowed(self) -> float:
        """``rate_factor`` once it is known (``RunConfig.resolved``)."""
        assert self.rate_factor is not None, "the config was not resolved against its data"
        return self.rate_factor

    @property
    def scale(self) -> float:
        """``token_scale``, likewise."""
        assert self.token_scale is not None, "the config was not resolved against its data"
        return self.token_scale


@dataclass(frozen=True)
class TokenBatch:
    """The sparse features of one global batch, ready for both directions.

    Attributes:
        documents: int64 [B], document numbers (for dropout masks).
        forward: B bags of tokens.
        tokens: int64 [U], the distinct tokens, ascending.
        backward: U bags of document positions.
    """

    documents: Tensor
    forward: Bags
    tokens: Tensor
    backward: Bags

    @staticmethod
    def build(documents: Tensor, features: Csr, device: torch.device) -> TokenBatch:
        tokens, backward = transposed_bags(features)
        return TokenBatch(
            placed(documents, device),
            bags_of(features).to(device),
            placed(torch.from_numpy(tokens), device),
            backward.to(device),
        )


def residual_block(u_BD: Tensor, weight_DD: Tensor, bias_D: Tensor) -> Tensor:
    """[B, D]: documents' embeddings from their bags, as they are without dropout.

    Args:
        weight_DD: SN(W), as ``Encoder.normalised_weight`` gives it.
    """
    v_BD = F.relu(u_BD)
    return v_BD + F.relu(F.linear(v_BD, weight_DD, bias_D))


class Encoder:
    """The encoder's weights and its optimizer on one worker.

    Attributes:
        table: float32 [V, d], this rank's columns of the token table.
        weight, bias: float32 [D, D] and [D], the residual block; the same on every rank.
        power: float32 [D], the power-iteration vector of spectral normalisation.
    """

    def __init__(
        self, config: EncoderConfig, table: Tensor, exchange: Exchange, *, seed: int
    ) -> None:
        dim = config.dim
        self.config, self.exchange, self.seed = config, exchange, seed
        self.columns = even(dim, exchange.size)[exchange.rank]
        assert table.shape[1] == self.columns[1] - self.columns[0]
        self.device = table.device
        self.table = table
        self.weight = torch.eye(dim, device=self.device, requires_grad=True)
        self.bias = torch.zeros(dim, device=self.device, requires_grad=True)
        generator = torch.Generator().manual_seed(seed)
        self.power = F.normalize(torch.randn(dim, generator=generator), dim=0).to(self.device)
        self.table_adam = RowAdam(self.table)
        self.weight_adam = RowAdam(self.weight.detach())
        self.bias_adam = RowAdam(self.bias.detach())

    def own_rows(self, size: int) -> slice:
        """The rows of a global batch of ``size`` that this rank holds."""
        rows = size // self.exchange.size
        return slice(self.exchange.rank * rows, (self.exchange.rank + 1) * rows)

    @torch.no_grad()
    def encode(self, features: Csr) -> Tensor:
        """[b, D]: embeddings of this rank's rows of a global batch, without dropout."""
        bags = bags_of(features).to(self.device)
        u_bD = self.exchange.columns_to_rows(sum_bags(self.table, bags), self.config.dim)
        return residual_block(u_bD, self.normalised_weight(), self.bias)

    def forward(self, batch: TokenBatch, epoch: int) -> tuple[Tensor, Tensor]:
        """Embeddings of this rank's rows with dropout, and the leaf that backward starts from.

        Returns:
            (z [b, D] with a graph, u [b, D] the leaf that collects the bag's gradient).
        """
        rate, dim = self.config.dropout, self.config.dim
        u_bD = self.exchange.columns_to_rows(sum_bags(self.table, batch.forward), dim)
        u_bD.requires_grad_()
        documents = batch.documents[self.own_rows(len(batch.documents))]
        v_bD = F.relu(u_bD)
        if rate > 0:
            v_bD = v_bD * dropout_factors(stream_key(self.seed, epoch, 0), documents, dim, rate)
        self._power_step()
        r_bD = F.relu(F.linear(v_bD, self.normalised_weight(), self.bias))
        if rate > 0:
            r_bD = r_bD * dropout_factors(stream_key(self.seed, epoch, 1), documents, dim, rate)
        return v_bD + r_bD, u_bD

    def backward(
        self, batch: TokenBatch, z_bD: Tensor, u_bD: Tensor, gradient_bD: Tensor, rate: float
    ) -> None:
        """Back-propagates ``gradient_bD`` through ``z_bD`` and takes one Adam step.

        Args:
            gradient_bD: float32 [b, D], the loss's gradient at ``z_bD``.
            rate: the learning rate, before ``rate_factor``.
        """
        rate *= self.config.slowed
        gradients = torch.autograd.grad(z_bD, [u_bD, self.weight, self.bias], gradient_bD)
        dim = self.config.dim
        block = torch.cat([gradients[1].reshape(-1), gradients[2]])
        # The block's gradient travels while the table is updated.
        wait_for_block = self.exchange.begin_sum(block)
        u_grad_Bd = self.exchange.rows_to_columns(gradients[0])
        self.table_adam.step(batch.tokens, sum_bags(u_grad_Bd, batch.backward), rate)
        wait_for_block()
        self.weight_adam.step(None, block[: dim * dim].view(dim, dim), rate)
        self.bias_adam.step(None, block[dim * dim :], rate)

    @torch.no_grad()
    def _power_step(self) -> None:
        """One power iteration, so that ``power`` follows the top left singular vector of W."""
        right = F.normalize(self.weight.t() @ self.power, dim=0)
        self.power = F.normalize(self.weight @ right, dim=0)

    def normalised_weight(self) -> Tensor:
        """W / σ with σ ≈ the largest singular value; gradients flow through σ, not the vectors."""
        with torch.no_grad():
            right = F.normalize(self.weight.t() @ self.power, dim=0)
        return self.weight / torch.dot(self.power, self.weight @ right)
