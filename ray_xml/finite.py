"""Numbers that are not finite stop a run: where they came from, as far as that can be told."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ray_xml.errors import TrainingError

_SHOWN = 5  # documents named in a message


def is_finite(tensor: Tensor) -> bool:
    """Whether no number is infinite or NaN; allocates nothing of the tensor's size."""
    if tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor.detach())
    return math.isfinite(float(low)) and math.isfinite(float(high))


def batch_error(
    loss: float, epoch: int, step: int, rows: np.ndarray, z_BD: Tensor
) -> TrainingError:
    """The error of a step whose loss is not finite, made before the step touched any weight.

    Args:
        epoch, step: counted from 0.
        rows: int64 [n], the batch's documents as rows of the train split.
        z_BD: [B, D], their embeddings; rows behind the n documents are padding.
    """
    bad = ~torch.isfinite(z_BD[: len(rows)]).all(1).cpu().numpy()
    batch = f"its batch is {_named(rows)} of the train split"
    if bad.all():
        what = (
            "the embeddings of all of them are not finite: lower training.rate and start a new run"
        )
    elif bad.any():
        what = (
            f"the embeddings of {_named(rows[bad])} are not finite: look at their feature values, "
            "prepare the data set again and start a new run"
        )
    else:
        what = "their embeddings are finite: lower training.rate and start a new run"
    return TrainingError(f"{_stopped(loss, epoch, step)}; {batch}; {what}")


def check_sum(loss: float, epoch: int, step: int) -> None:
    """Refuses a loss that turns out not to be finite after its step was taken.

    Raises:
        TrainingError: likewise; weights in memory may be spoilt, those in checkpoints are not.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"{_stopped(loss, epoch, step)}; lower training.rate and start a new run"
        )


def check_losses(losses: np.ndarray, epoch: int) -> None:
    """As ``check_sum``, for all steps of an epoch: float32 [steps]."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if len(wrong):
        check_sum(float(losses[wrong[0]]), epoch, int(wrong[0]))


def check_tensor(tensor: Tensor, name: str, epoch: int) -> None:
    """Refuses to keep numbers that are not finite: a checkpoint never holds one.

    Args:
        epoch: epochs done.
    """
    if not is_finite(tensor):
        raise TrainingError(
            f"{name} holds numbers that are not finite after epoch {epoch}, so that it is not "
            "stored; checkpoints of earlier epochs are good; lower training.rate and start a new "
            "run"
        )


def _stopped(loss: float, epoch: int, step: int) -> str:
    return (
        f"the loss became {loss} at step {step} of epoch {epoch + 1}; checkpoints of earlier "
        "epochs are good"
    )


def _named(rows: np.ndarray) -> str:
    shown = ", ".join(str(row) for row in rows[:_SHOWN])
    more = f", … ({len(rows)} in all)" if len(rows) > _SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more}"
