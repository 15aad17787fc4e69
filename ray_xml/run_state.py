"""What a run has to remember to go on, and how it goes into and out of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ray_xml import checkpoint
from ray_xml.classifier import Classifier, RowOptimizer
from ray_xml.encoder import Encoder
from ray_xml.epoch_steps import Trained
from ray_xml.errors import CheckpointError, RayXmlError, TrainingError
from ray_xml.exchange import Exchange
from ray_xml.finite import check_tensor
from ray_xml.label_index import IndexState
from ray_xml.partition import Range
from ray_xml.ranges import Ranges
from ray_xml.refresh import Validation
from ray_xml.run_config import RunConfig
from ray_xml.store import DataSet


@dataclass
class RunState:
    """Where a run stands. Checkpoints keep the first three and what ``validation`` says.

    Attributes:
        epoch: epochs done.
        best_epoch, best_value: the best validated checkpoint so far and its metric.
        stored: whether the state is in a checkpoint already.
        validation, proxy_loss: what the last refresh found, until it is reported.
        indexes: what its indexes turned out to be, likewise.
        trained, rate: of the last epoch.
    """

    epoch: int
    best_epoch: int | None = None
    best_value: float = -math.inf
    stored: bool = False
    validation: Validation | None = None
    proxy_loss: float = math.nan
    indexes: list[IndexState] = field(default_factory=list)
    trained: Trained | None = None
    rate: float = 0.0


def save_state(
    root: Path,
    state: RunState,
    encoder: Encoder,
    classifier: Classifier,
    ranges: Ranges | None,
    exchange: Exchange,
    data: DataSet,
    config: RunConfig,
    line: Mapping[str, Any],
) -> None:
    """Writes the checkpoint of ``state.epoch``; every worker calls this.

    With ``ranges`` the proxies are part of it, so that it can predict.

    Args:
        line: the epoch's line of metrics.jsonl, so that whoever stops before it is written there
            finds it here.

    Raises:
        DiskError: the disk is full or takes nothing; no half checkpoint stays.
        TrainingError: a number to be stored is not finite, or another worker failed so.
    """
    rank, folder = exchange.rank, checkpoint.temporary(root, state.epoch)

    def begin() -> None:
        if rank == 0:
            checkpoint.begin(root, state.epoch)

    def write() -> None:
        for kind, held, tensors, moments in _parts(encoder, classifier):
            if kind == "encoder" and rank != 0:
                continue
            if kind == "encoder":
                # What prediction needs, so that it need not know of spectral normalisation.
                tensors = {**tensors, "normalised_weight": encoder.normalised_weight().detach()}
            for name, some in ((kind, tensors), (f"optimizer-{kind}", _moments(moments))):
                for key, tensor in some.items():
                    check_tensor(tensor, f"{name}.{key}", state.epoch)
                checkpoint.save_part(folder, name, rank, held, some)
        if rank == 0 and ranges is not None:
            ranges.save_proxies(folder)

    def finish() -> None:
        if rank != 0:
            return
        checked = state.validation
        manifest = {
            "data_set": {"name": data.meta.name, "checksum": data.meta.checksum},
            "num_features": data.meta.num_features,
            "num_labels": data.meta.num_labels,
            "dim": config.encoder.dim,
            "workers": exchange.size,
            "best_epoch": state.best_epoch,
            "best_value": state.best_value if math.isfinite(state.best_value) else None,
            "blend": None if checked is None else checked.blend.as_dict(),
            "validation": {} if checked is None else checked.results,
            "with_proxies": ranges is not None,
            "exact": sorted({one.source for one in state.indexes if one.kind == "flat"}),
            "adam_steps": {
                f"{kind}.{name}": float(adam.steps)
                for kind, _, _, moments in _parts(encoder, classifier)
                for name, adam in moments.items()
            },
            "line": line,
        }
        checkpoint.finish(root, state.epoch, manifest)
        newest = checkpoint.epochs_in(root)[-config.training.keep_checkpoints :]
        checkpoint.remove_others(root, {*newest, state.best_epoch or state.epoch})

    for work in (begin, write, finish):
        _together(work, root, state.epoch, exchange, encoder.device)


_MESSAGE = 1024  # bytes of an error that the other workers hear of


def _together(
    work: Callable[[], None], root: Path, epoch: int, exchange: Exchange, device: torch.device
) -> None:
    """Does every worker's part of a checkpoint, or fails on all of them alike.

    A worker that fails by itself would leave the others waiting for it; they would tell of a lost
    connection rather than of a full disk.
    """
    failed: RayXmlError | None = None
    try:
        work()
    except RayXmlError as error:
        failed = error
    count = exchange.sum_(torch.tensor(float(failed is not None), device=device))
    if not count > 0:
        return
    text = str(failed or "").encode()[:_MESSAGE].ljust(_MESSAGE)
    told = exchange.gather_rows(
        torch.frombuffer(bytearray(text), dtype=torch.uint8)[None].to(device)
    )
    if exchange.rank == 0:
        checkpoint.give_up(root, epoch)
    if failed is not None:
        raise failed
    texts = [bytes(row.tolist()).decode(errors="replace").rstrip() for row in told]
    raise TrainingError(next(text for text in texts if text))


def load_state(root: Path, encoder: Encoder, classifier: Classifier, data: DataSet) -> RunState:
    """Restores the newest checkpoint, at any number of workers.

    Raises:
        CheckpointError: damaged, or made from another data set or another shape.
    """
    epoch = checkpoint.epochs_in(root)[-1]
    folder = checkpoint.folder_of(root, epoch)
    manifest = checkpoint.read_manifest(folder)
    check_data_set(folder, manifest, data)
    for kind, held, tensors, moments in _parts(encoder, classifier):
        axis = 1 if kind == "tokens" else 0
        into = [(kind, tensors), (f"optimizer-{kind}", _moments(moments))]
        for part, wanted in into:
            for name, tensor in wanted.items():
                checkpoint.load_into(tensor, folder, part, name, held, axis)
        for name, adam in moments.items():
            steps = manifest["adam_steps"].get(f"{kind}.{name}")
            if steps is None:
                raise CheckpointError(
                    f"{folder}: the manifest has no adam_steps of {kind}.{name}; use another "
                    "checkpoint of the run"
                )
            adam.steps.fill_(float(steps))
    best_value = manifest["best_value"]
    return RunState(
        epoch=epoch,
        best_epoch=manifest["best_epoch"],
        best_value=-math.inf if best_value is None else float(best_value),
        stored=True,
    )


def check_data_set(folder: Path, manifest: dict[str, Any], data: DataSet) -> None:
    """Refuses a data set other than the one that the checkpoint was trained on."""
    if manifest["data_set"]["checksum"] != data.meta.checksum:
        raise CheckpointError(
            f"{folder} was trained on data set {manifest['data_set']['name']!r} with checksum "
            f"{manifest['data_set']['checksum'][:12]}, but {data.path} has "
            f"{data.meta.checksum[:12]}; give the data set it was trained on"
        )


_Part = tuple[str, Range, dict[str, Tensor], dict[str, RowOptimizer]]


def _parts(encoder: Encoder, classifier: Classifier) -> list[_Part]:
    """(kind, range held, weights, optimizers) of everything a worker holds."""
    dim = encoder.config.dim
    return [
        ("tokens", encoder.columns, {"table": encoder.table}, {"table": encoder.table_adam}),
        (
            "encoder",
            (0, dim),
            {
                "weight": encoder.weight.detach(),
                "bias": encoder.bias.detach(),
                "power": encoder.power,
            },
            {"weight": encoder.weight_adam, "bias": encoder.bias_adam},
        ),
        (
            "classifier",
            classifier.label_range,
            {"weight": classifier.weight, "bias": classifier.bias},
            {"weight": classifier.weight_adam, "bias": classifier.bias_adam},
        ),
    ]


def _moments(optimizers: dict[str, RowOptimizer]) -> dict[str, Tensor]:
    return {
        f"{name}.{moment}": tensor
        for name, optimizer in optimizers.items()
        for moment, tensor in optimizer.state().items()
    }
