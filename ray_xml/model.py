"""A trained model in memory, as prediction needs it, and how it comes out of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ray_xml import checkpoint
from ray_xml.blend import DEFAULT, Blend
from ray_xml.errors import CheckpointError
from ray_xml.lexical import Lexical
from ray_xml.lexical_file import load_lexical
from ray_xml.neighbors import Neighbors
from ray_xml.pair_scores import torch_type
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder
from ray_xml.sparse import is_finite


@dataclass(frozen=True)
class Model:
    """Everything that a prediction depends on.

    Attributes:
        config: the run's config.
        epoch: the epoch of the checkpoint it came from.
        table: float32 [V, D] token embeddings.
        weight: float32 [D, D], the residual block's, spectrally normalised; ``bias`` its [D].
        labels: int32 [K], ascending: the labels that have a training document.
        proxies: float32 or float16 [K, D], of unit length.
        rows: float32 or float16 [K, D + 1], classifier rows, the bias behind each.
        lexical: the sparse channel.
        blend: the score.
        exact: sources whose approximate index missed too much in training: they are searched
            exactly.
    """

    config: RunConfig
    epoch: int
    table: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    labels: np.ndarray
    proxies: np.ndarray
    rows: np.ndarray
    lexical: Lexical
    blend: Blend
    exact: tuple[str, ...] = ()

    @property
    def neighbors(self) -> Neighbors:
        return self.lexical.neighbors

    @property
    def num_features(self) -> int:
        return len(self.table)

    @property
    def num_labels(self) -> int:
        return self.neighbors.num_labels


def model_of_run(path: str | Path) -> Model:
    """The best model of a run folder.

    Raises:
        CheckpointError: no run, no checkpoint that can predict, or a damaged one.
    """
    run = RunFolder(path)
    return model_of_checkpoint(run.model(), run.config(), run.neighbors_file)


def model_of_checkpoint(folder: Path, config: RunConfig, neighbors_file: Path) -> Model:
    """The model of one checkpoint.

    Raises:
        CheckpointError: it has no proxies yet, or something is damaged.
    """
    manifest = checkpoint.read_manifest(folder)
    if not manifest["with_proxies"]:
        raise CheckpointError(f"{folder}: has no proxies yet, so it cannot predict")
    config.check_resolved(folder)
    num_labels, dim = manifest["num_labels"], manifest["dim"]
    if dim != config.encoder.dim:
        raise CheckpointError(
            f"{folder}: made with encoder.dim={dim}, the run's config has {config.encoder.dim}: it "
            "is another run's; train again"
        )

    def load(kind: str, name: str, shape: tuple[int, ...], axis: int = 0) -> np.ndarray:
        found = checkpoint.load_range(folder, kind, name, (0, shape[axis]), axis=axis)
        _check(folder, name, found, shape)
        return found

    lexical = load_lexical(neighbors_file, config.neighbors)
    widths = lexical.neighbors.num_features, lexical.neighbors.num_labels
    if widths != (manifest["num_features"], num_labels):
        raise CheckpointError(
            f"{neighbors_file}: {widths[0]} features and {widths[1]} labels, the checkpoint has "
            f"{manifest['num_features']} and {num_labels}: it is another run's; train again"
        )
    # Labels without a training document have a zero proxy and are never predicted.
    known = np.flatnonzero(lexical.label_counts).astype(np.int32)
    kind = config.shortlist.dtype(len(known))
    proxies, rows = np.empty((len(known), dim), kind), np.empty((len(known), dim + 1), kind)
    for into, part, name in (
        (proxies, "proxies", "proxies"),
        (rows[:, :-1], "classifier", "weight"),
        (rows[:, -1], "classifier", "bias"),
    ):
        _fill(into, folder, part, name, known, num_labels)
        _check(folder, name, into, into.shape)
    try:
        blend = Blend.from_dict(manifest["blend"]) if manifest["blend"] else DEFAULT
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{folder}: damaged score weights ({error!r})") from error
    return Model(
        config=config,
        epoch=manifest["epoch"],
        table=load("tokens", "table", (widths[0], dim), 1),
        weight=load("encoder", "normalised_weight", (dim, dim)),
        bias=load("encoder", "bias", (dim,)),
        labels=known,
        proxies=proxies,
        rows=rows,
        lexical=lexical,
        blend=blend,
        exact=tuple(manifest["exact"]),
    )


def _fill(
    into: np.ndarray, folder: Path, kind: str, name: str, known: np.ndarray, num_labels: int
) -> None:
    """Takes the rows of the labels ``known`` out of a checkpoint, piece by piece."""
    for first, piece in checkpoint.pieces(folder, kind, name, (0, num_labels)):
        if piece.shape[1:] != into.shape[1:]:
            raise CheckpointError(
                f"{folder}: damaged, {name} is {list(piece.shape)}, not [..., "
                f"{', '.join(map(str, into.shape[1:]))}]; use another checkpoint of the run"
            )
        begin, end = np.searchsorted(known, (first, first + len(piece)))
        chosen = torch.from_numpy(known[begin:end].astype(np.int64) - first)
        # numpy has no bfloat16.
        into[begin:end] = piece[chosen].to(torch_type(into.dtype)).numpy()


def _check(folder: Path, name: str, found: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuses an array of another shape or kind, or with numbers that are not finite."""
    if found.shape != shape or found.dtype.kind != "f":
        what = f"is {found.dtype} {list(found.shape)}, not floats {list(shape)}"
    elif not is_finite(found):
        what = "holds numbers that are not finite"
    else:
        return
    raise CheckpointError(f"{folder}: damaged, {name} {what}; use another checkpoint of the run")
