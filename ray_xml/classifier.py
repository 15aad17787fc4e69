"""The classifier: one linear row a label, cut over the workers by label ranges.

Each worker scores the whole global batch against the candidates of its own range, with binary
cross-entropy, and returns the gradient for the documents. Candidates are the labels that any
document of the batch has or has on its shortlist:

    negatives: union       every candidate is a negative for every document of the batch; labels
                           drawn at random join the candidates, so that labels which no shortlist
                           names are told what they are not
    negatives: random      likewise without shortlists: the batch's own labels and those drawn
    negatives: shortlist   a document's negatives are those on its own shortlist (the paper's)

All are one dense product; ``shortlist`` masks it. Where all labels are drawn, or negatives are
random, no shortlist is needed and none is made.

Shape legend: B documents of the global batch, D dimensions, R labels of this rank's range,
C candidates within the range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ray_xml.config import Section
from ray_xml.lean_adam import LeanAdam, Second, moment_bytes
from ray_xml.partition import Range
from ray_xml.row_adam import RowAdam
from ray_xml.sparse import Csr, distinct
from ray_xml.transfer import placed


class ClassifierConfig(Section):
    """How the classifier is trained.

    Attributes:
        negatives: which labels a document is told that it does not have: ``union`` (all that any
            document of the batch has or lists), ``random`` (likewise without lists) or
            ``shortlist`` (its own list); docs/method.md. ``auto`` is ``random`` where labels have
            fewer than 20 documents each, on average, else ``union``.
        random_negatives: labels drawn at random into the candidates of every batch, but with
            ``shortlist``. None is all labels where there are at most 8,192, else 4,096
            without shortlists and 2,048 beside them.
        candidates: labels that a batch trains, about: where its own and the listed ones are
            fewer, labels drawn at random join them, so that steps take alike whatever the
            shortlists hold. None adds none beyond ``random_negatives``.
        precision: of two of a step's three matrix products, the scores and the rows' gradient;
            sums and everything else stay float32. ``auto`` is bfloat16 where the processor
            multiplies it natively.
        storage: of the rows and their first moments; bfloat16 is rounded at random, so that small
            steps are not lost. ``auto`` is bfloat16 where there are more than 500,000 labels.
        optimizer: ``adam`` (two moments a weight), ``adam_row`` (one, and a second moment a row)
            or ``sgd`` (none, its rate is ``sgd_rate`` times ``training.rate``); ``auto`` is
            ``adam`` where rows are float32, else ``adam_row``. Bytes a weight with float32 rows:
            12, 8, 4; with bfloat16 rows half of that.
        sgd_rate: see ``optimizer``.
    """

    negatives: Literal["auto", "union", "random", "shortlist"] = "union"
    random_negatives: int | None = Field(None, ge=0)
    candidates: int | None = Field(None, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    storage: Literal["auto", "float32", "bfloat16"] = "auto"
    optimizer: Literal["auto", "adam", "adam_row", "sgd"] = "auto"
    sgd_rate: float = Field(1000.0, gt=0)

    @property
    def drawn(self) -> int:
        """``random_negatives`` once it is known (``RunConfig.resolved``)."""
        assert self.random_negatives is not None, "the config was not resolved against its data"
        return self.random_negatives

    @property
    def second(self) -> Second:
        """The second moments that ``optimizer`` keeps (see ``lean_adam``)."""
        assert self.optimizer != "auto", "the config was not resolved against its data"
        kinds: dict[str, Second] = {"adam": "element", "adam_row": "row", "sgd": "none"}
        return kinds[self.optimizer]

    @property
    def item(self) -> int:
        """Bytes of a number in the rows."""
        assert self.storage != "auto", "the config was not resolved against its data"
        return 2 if self.storage == "bfloat16" else 4

    def weight_bytes(self, labels: int, dim: int) -> int:
        """Bytes of the rows of so many labels, biases apart."""
        return labels * dim * self.item

    def moment_bytes(self, labels: int, dim: int) -> int:
        """Bytes of the rows' moments, and of the biases with theirs."""
        return moment_bytes(labels, dim, self.item, self.second) + 12 * labels

    def step_bytes(self, batch: int, count: int, dim: int, product: torch.dtype) -> int:
        """Bytes of what ``Classifier.step`` works with at its fullest, when the rows' gradient is
        made: the candidates' rows as they are stored and in the products' type, two float32
        matrices of scores (three with a mask), and the gradient before and after it is widened.

        Args:
            batch, count: B and C.
        """
        low = product.itemsize
        rows = count * dim * (self.item + (low if low != self.item else 0))
        scores = 4 * batch * count * (3 if self.negatives == "shortlist" else 2)
        narrow = low if low < 4 else 0
        return rows + scores + narrow * batch * count + (4 + narrow) * count * dim

    def uses_shortlists(self, num_labels: int) -> bool:
        """Whether shortlists have a say in which labels a batch trains."""
        if self.negatives == "union":
            return self.drawn < num_labels
        return self.negatives == "shortlist"


RowOptimizer = RowAdam | LeanAdam


class NotFiniteLossError(ArithmeticError):
    """A step's loss is not finite, and the step touched no weight."""

    def __init__(self, loss: float) -> None:
        self.loss = loss
        super().__init__(f"the loss is {loss}")


@dataclass(frozen=True)
class Candidates:
    """The labels of one range that a batch trains.

    Attributes:
        count: C.
        rows: int64 [C], row numbers within the range, ascending; None is all of them.
        positives: int64 [P], positions row · C + column of the (document, label) pairs that hold.
        mask: float32 [B, C] of zeros and ones, or None when every entry counts.
        left_out: int64 [Q], positions that count neither way; None for none.
    """

    count: int
    rows: Tensor | None
    positives: Tensor
    mask: Tensor | None
    left_out: Tensor | None = None

    @staticmethod
    def build(
        shortlist: np.ndarray,
        labels: Csr,
        label_range: Range,
        device: torch.device,
        *,
        negatives: str,
        documents: int,
        drawn: np.ndarray | None = None,
        left_out: Csr | None = None,
    ) -> Candidates:
        """Collects the candidates of one batch.

        Args:
            shortlist: int32 [B, k], label numbers, −1 for none.
            labels: the batch's true labels [B, L].
            documents: the leading rows that are documents; those behind are padding and get no
                gradient.
            drawn: int32, label numbers that join the candidates.
            left_out: [documents, L], pairs that are not to be negatives; positives stay.
        """
        low, high = label_range
        own = (shortlist >= low) & (shortlist < high)
        listed = shortlist[own]
        labels = labels.packed()
        held = (labels.ids >= low) & (labels.ids < high)
        positive_ids = labels.ids[held]
        joined = [listed, positive_ids]
        if drawn is not None:
            joined.append(drawn[(drawn >= low) & (drawn < high)])
        ids = distinct(np.concatenate(joined))
        count = len(ids)
        places = labels.row_of_entry()[held] * count + np.searchsorted(ids, positive_ids)
        positives = placed(torch.from_numpy(places), device)
        # The mask is made where it is used: its ones are few beside its B x C entries.
        mask = None
        if negatives == "shortlist":
            found = np.nonzero(own)[0] * count + np.searchsorted(ids, listed)
            mask = torch.zeros(len(shortlist) * count, device=device)
            mask.index_fill_(0, placed(torch.from_numpy(found), device), 1)
            mask = mask.index_fill_(0, positives, 1).view(len(shortlist), count)
        elif documents < len(shortlist):
            mask = torch.ones(len(shortlist), count, device=device)
        if mask is not None:
            mask[documents:] = 0
        rows = None
        if count < high - low:
            rows = placed(torch.from_numpy(ids.astype(np.int64) - low), device)
        without = None
        if left_out is not None and left_out.nnz:
            pairs = left_out.packed()
            columns = np.minimum(np.searchsorted(ids, pairs.ids), max(count - 1, 0))
            there = np.flatnonzero(ids[columns] == pairs.ids) if count else columns[:0]
            at = np.setdiff1d(pairs.row_of_entry()[there] * count + columns[there], places)
            without = placed(torch.from_numpy(at), device) if len(at) else None
        return Candidates(count, rows, positives, mask, without)


class Classifier:
    """The classifier rows of one label range and their optimizer.

    Attributes:
        label_range: (low, high), the labels of this rank.
        weight: float32 or bfloat16 [R, D]; bias: float32 [R].
    """

    def __init__(
        self,
        label_range: Range,
        dim: int,
        label_counts: np.ndarray,
        num_documents: int,
        device: torch.device,
        config: ClassifierConfig,
        *,
        seed: int = 0,
    ) -> None:
        """Starts every logit at the label's log-odds in train, so that the loss starts calibrated.

        Args:
            label_counts: int [R], documents of each label of the range.
            num_documents: documents of train.
            config: resolved.
            seed: of the rounding of bfloat16 rows.
        """
        low, high = label_range
        self.label_range, self.config = label_range, config
        self.product_type = product_type(config.precision, device)
        share = (np.asarray(label_counts, np.float64) + 0.5) / (num_documents + 1.0)
        kind = torch.bfloat16 if config.storage == "bfloat16" else torch.float32
        self.weight = torch.zeros(high - low, dim, device=device, dtype=kind)
        self.bias = torch.from_numpy(np.log(share / (1 - share)).astype(np.float32)).to(device)
        self.weight_adam = self._optimizer(seed)
        self.bias_adam = RowAdam(self.bias)

    def _optimizer(self, seed: int) -> RowOptimizer:
        second = self.config.second
        if second == "element" and self.weight.dtype == torch.float32:
            return RowAdam(self.weight)  # torch's fused kernel
        return LeanAdam(self.weight, second, first_row=self.label_range[0], seed=seed)

    @torch.no_grad()
    def step(
        self, z_BD: Tensor, candidates: Candidates, documents: int, rate: float
    ) -> tuple[Tensor, Tensor]:
        """One Adam step on the candidates' rows.

        The loss is the mean over documents of the sum over candidates of the binary
        cross-entropy; its gradient is formed directly as σ(x) − y.

        Args:
            z_BD: float32 or ``product_type`` [B, D], embeddings of the global batch.
            documents: how many of the B rows are documents.
            rate: the learning rate.

        Returns:
            (this range's share of the loss, float32 scalar; its gradient at z, float32 [B, D]).

        Raises:
            NotFiniteLossError: on a CPU. A GPU would have to be waited for at each step: there
                whoever adds up the losses looks at them.
        """
        rows, low = candidates.rows, self.product_type
        weight_CD, bias_C, z_low_BD = self.weight, self.bias, z_BD.to(low)
        if rows is not None:
            weight_CD, bias_C = weight_CD.index_select(0, rows), bias_C.index_select(0, rows)
        logit_BC = (z_low_BD @ weight_CD.to(low).t()).float()
        logit_BC += bias_C
        positive_logits = logit_BC.view(-1)[candidates.positives]
        terms_BC = F.softplus(logit_BC)
        if candidates.mask is not None:
            terms_BC *= candidates.mask
        if candidates.left_out is not None:
            terms_BC.view(-1).index_fill_(0, candidates.left_out, 0)
        loss = (terms_BC.sum() - positive_logits.sum()) / documents
        if loss.device.type == "cpu" and not math.isfinite(value := float(loss)):
            raise NotFiniteLossError(value)
        gradient_BC = torch.sigmoid(logit_BC, out=terms_BC)
        gradient_BC.view(-1)[candidates.positives] -= 1
        if candidates.mask is not None:
            gradient_BC *= candidates.mask
        if candidates.left_out is not None:
            gradient_BC.view(-1).index_fill_(0, candidates.left_out, 0)
        gradient_BC /= documents
        # In float32 always: it is summed over ranges, and rounding each part would make the
        # result depend on the number of ranges.
        z_gradient_BD = gradient_BC @ weight_CD.float()
        row_gradient_CD = (gradient_BC.to(low).t() @ z_low_BD).float()
        factor = self.config.sgd_rate if self.config.optimizer == "sgd" else 1.0
        self.weight_adam.step(rows, row_gradient_CD, rate * factor)
        self.bias_adam.step(rows, gradient_BC.sum(0), rate)
        return loss, z_gradient_BD


def product_type(precision: str, device: torch.device) -> torch.dtype:
    """The type that ``precision`` stands for on ``device``."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            can = torch.cpu.get_capabilities()
            native = any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32
