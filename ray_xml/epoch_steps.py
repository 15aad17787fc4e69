"""One epoch of classifier training: batch after batch, the same step on every worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ray_xml.batches import Batch
from ray_xml.classifier import Classifier, NotFiniteLossError
from ray_xml.encoder import Encoder
from ray_xml.exchange import Exchange
from ray_xml.finite import batch_error, check_losses, check_sum
from ray_xml.heap import give_back

_TOLD = 16  # steps from one look at the loss to the next

# Told every few steps: documents done, when the epoch began, the batch's loss.
Told = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Trained:
    """What an epoch came to.

    Attributes:
        losses: float32 [steps], over all workers.
        docs_per_second: of the global batches.
        bytes_per_step: that this worker sent.
        candidates_per_step: over all workers.
    """

    losses: np.ndarray
    docs_per_second: float
    bytes_per_step: float
    candidates_per_step: float


@dataclass(frozen=True)
class Steps:
    """What one worker needs for a step.

    Attributes:
        rows: int64 [documents], their numbers in the train split, by which errors name them.
    """

    encoder: Encoder
    classifier: Classifier
    exchange: Exchange
    rows: np.ndarray

    def train(
        self,
        batches: Iterable[Batch],
        epoch: int,
        steps: int,
        rate_at: Callable[[float], float],
        told: Told,
    ) -> Trained:
        """Trains on ``steps`` batches.

        Args:
            epoch: counted from 0.
            rate_at: the learning rate after so many epochs.

        Raises:
            TrainingError: a loss is not finite; the batch is named.
        """
        done, candidates = 0, 0
        losses: list[torch.Tensor] = []
        began, sent = time.perf_counter(), self.exchange.bytes_sent
        for number, batch in enumerate(batches):
            losses.append(self._step(batch, epoch, number, rate_at(epoch + number / steps)))
            done += batch.documents
            candidates += batch.candidates.count
            if number % _TOLD == _TOLD - 1 or number == steps - 1:
                # Summed first: every worker then goes on or stops alike.
                loss = float(self.exchange.sum_(losses[-1].clone()))
                check_sum(loss, epoch, number)
                told(done, began, loss)
                give_back()
        summed = self.exchange.sum_(torch.stack(losses)).cpu().numpy().astype(np.float32)
        check_losses(summed, epoch)
        mean = torch.tensor([candidates / steps], device=self.encoder.device)
        return Trained(
            summed,
            done / (time.perf_counter() - began),
            (self.exchange.bytes_sent - sent) / steps,
            float(self.exchange.sum_(mean)),
        )

    def _step(self, batch: Batch, epoch: int, number: int, rate: float) -> torch.Tensor:
        z_bD, u_bD = self.encoder.forward(batch.tokens, epoch)
        # The classifier rounds embeddings to its products' type anyway: they travel in it.
        z_BD = self.exchange.gather_rows(z_bD.detach().to(self.classifier.product_type))
        try:
            loss, gradient_BD = self.classifier.step(z_BD, batch.candidates, batch.documents, rate)
        except NotFiniteLossError as error:
            documents = batch.tokens.documents[: batch.documents].cpu().numpy()
            raise batch_error(error.loss, epoch, number, self.rows[documents], z_BD) from None
        gradient_bD = self.exchange.scatter_sum_rows(gradient_BD)
        self.encoder.backward(batch.tokens, z_bD, u_bD, gradient_bD, rate)
        return loss
