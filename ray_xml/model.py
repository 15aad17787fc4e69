"""A trained model in memory, as prediction needs it, and how it comes out of a run folder."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ray_xml import added_labels, checkpoint
from ray_xml.added_labels import AddedLabels
from ray_xml.blend import DEFAULT, Blend, Evidence
from ray_xml.errors import CheckpointError
from ray_xml.lexical import Lexical
from ray_xml.lexical_file import load_lexical
from ray_xml.neighbors import Neighbors
from ray_xml.pair_scores import torch_type
from ray_xml.partition import Range
from ray_xml.probability import UNFITTED, Probability
from ray_xml.run_config import RunConfig
from ray_xml.run_folder import RunFolder, tell
from ray_xml.sparse import is_finite


@dataclass(frozen=True)
class DocumentModel:
    """What a prediction needs of a model on the documents' side, whatever the labels' number.

    Attributes:
        config: the run's config.
        epoch: the epoch of the checkpoint it came from.
        table: float32 [V, D] token embeddings.
        weight: float32 [D, D], the residual block's, spectrally normalised; ``bias`` its [D].
        lexical: the sparse channel.
        blend: the score.
        probability: what its scores are worth.
        added: labels that it got after training, by ascending number.
    """

    config: RunConfig
    epoch: int
    table: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    lexical: Lexical
    blend: Blend
    probability: Probability = field(default=UNFITTED, kw_only=True)
    added: tuple[AddedLabels, ...] = field(default=(), kw_only=True)

    @property
    def neighbors(self) -> Neighbors:
        return self.lexical.neighbors

    @property
    def num_features(self) -> int:
        return len(self.table)

    @property
    def num_labels(self) -> int:
        return self.neighbors.num_labels

    def log_odds(self, evidence: Evidence) -> np.ndarray:
        """float32 [n, m]: what candidates are ordered by; σ of it is the score."""
        return added_labels.log_odds(self.blend, self.added, evidence, self.lexical.label_counts)


@dataclass(frozen=True)
class RangeModel:
    """What a prediction needs of some labels.

    Attributes:
        config: the run's config.
        labels: int32 [K], ascending: those of the range that have a training document.
        proxies: float32 or float16 [K, D], of unit length.
        rows: float32 or float16 [K, D + 1], classifier rows, the bias behind each.
        exact: sources whose approximate index missed too much in training: they are searched
            exactly.
    """

    config: RunConfig
    labels: np.ndarray
    proxies: np.ndarray
    rows: np.ndarray
    exact: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model(DocumentModel):
    """Everything that a prediction depends on.

    Attributes:
        labels, proxies, rows, exact: as in ``RangeModel``, of all labels.
    """

    labels: np.ndarray
    proxies: np.ndarray
    rows: np.ndarray
    exact: tuple[str, ...] = ()

    @staticmethod
    def of(documents: DocumentModel, labels: RangeModel) -> Model:
        """The two sides together; ``labels`` are all."""
        own = {one.name: getattr(documents, one.name) for one in fields(DocumentModel)}
        theirs = (labels.labels, labels.proxies, labels.rows, labels.exact)
        return Model(**own, labels=theirs[0], proxies=theirs[1], rows=theirs[2], exact=theirs[3])

    def all_labels(self) -> RangeModel:
        """The labels' side."""
        return RangeModel(self.config, self.labels, self.proxies, self.rows, self.exact)


def model_of_run(path: str | Path) -> Model:
    """The best model of a run folder.

    Raises:
        CheckpointError: no run, no checkpoint that can predict, or a damaged one.
    """
    run = RunFolder(path)
    folder = run.model()
    model = model_of_checkpoint(folder, run.config(), run.neighbors_file)
    return replace(model, probability=probability_of(run, folder))


def probability_of(run: RunFolder, folder: Path) -> Probability:
    """What ``ray-xml calibrate`` left in the run folder, if it is of this checkpoint.

    Raises:
        CheckpointError: it is damaged.
    """
    file = run.probability_file
    try:
        seal = str(checkpoint.read_manifest(folder)["seal"])
        found = Probability.from_json(file.read_bytes(), seal)
    except FileNotFoundError:
        return UNFITTED
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: damaged ({error}); run `ray-xml calibrate {run.path}` again"
        ) from error
    if found is None:
        tell(f"{file} is of another checkpoint; run `ray-xml calibrate {run.path}` again")
    return found or UNFITTED


def model_of_checkpoint(folder: Path, config: RunConfig, neighbors_file: Path) -> Model:
    """The model of one checkpoint.

    Raises:
        CheckpointError: it has no proxies yet, or something is damaged.
    """
    documents = documents_of_checkpoint(folder, config, neighbors_file)
    known = labels_known(documents.lexical)
    return Model.of(documents, range_of_checkpoint(folder, config, known))


def labels_known(lexical: Lexical) -> np.ndarray:
    """int32 [K], ascending: labels with a training document. The others have a zero proxy and are
    never predicted."""
    return np.flatnonzero(lexical.label_counts).astype(np.int32)


def documents_of_checkpoint(folder: Path, config: RunConfig, neighbors_file: Path) -> DocumentModel:
    """The documents' side of a checkpoint; errors are those of ``model_of_checkpoint``."""
    manifest = _manifest(folder, config)
    num_labels, dim = manifest["num_labels"], manifest["dim"]

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
    try:
        blend = Blend.from_dict(manifest["blend"]) if manifest["blend"] else DEFAULT
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{folder}: damaged score weights ({error!r})") from error
    return DocumentModel(
        config=config,
        epoch=manifest["epoch"],
        table=load("tokens", "table", (widths[0], dim), 1),
        weight=load("encoder", "normalised_weight", (dim, dim)),
        bias=load("encoder", "bias", (dim,)),
        lexical=lexical,
        blend=blend,
    )


def range_of_checkpoint(
    folder: Path, config: RunConfig, known: np.ndarray, places: Range | None = None
) -> RangeModel:
    """Labels of a checkpoint, of which no others are read.

    Args:
        known: from ``labels_known``.
        places: which of them; None is all.

    Raises:
        CheckpointError: it has no proxies yet, or something is damaged.
    """
    manifest = _manifest(folder, config)
    kind = config.shortlist.dtype(len(known))
    some = known if places is None else known[slice(*places)]
    dim = manifest["dim"]
    proxies, rows = np.empty((len(some), dim), kind), np.empty((len(some), dim + 1), kind)
    span = (int(some[0]), int(some[-1]) + 1) if len(some) else (0, 0)
    for into, part, name in (
        (proxies, "proxies", "proxies"),
        (rows[:, :-1], "classifier", "weight"),
        (rows[:, -1], "classifier", "bias"),
    ):
        _fill(into, folder, part, name, some, span)
        _check(folder, name, into, into.shape)
    return RangeModel(config, some, proxies, rows, tuple(manifest["exact"]))


def _manifest(folder: Path, config: RunConfig) -> dict[str, Any]:
    """The manifest of a checkpoint that can predict and is of ``config``'s run."""
    manifest = checkpoint.read_manifest(folder)
    if not manifest["with_proxies"]:
        raise CheckpointError(f"{folder}: has no proxies yet, so it cannot predict")
    config.check_resolved(folder)
    if manifest["dim"] != config.encoder.dim:
        raise CheckpointError(
            f"{folder}: made with encoder.dim={manifest['dim']}, the run's config has "
            f"{config.encoder.dim}: it is another run's; train again"
        )
    return manifest


def _fill(
    into: np.ndarray, folder: Path, kind: str, name: str, wanted: np.ndarray, span: Range
) -> None:
    """Takes the rows of the labels ``wanted`` out of a checkpoint, piece by piece."""
    for first, piece in checkpoint.pieces(folder, kind, name, span):
        if piece.shape[1:] != into.shape[1:]:
            raise CheckpointError(
                f"{folder}: damaged, {name} is {list(piece.shape)}, not [..., "
                f"{', '.join(map(str, into.shape[1:]))}]; use another checkpoint of the run"
            )
        low = span[0] + first
        begin, end = np.searchsorted(wanted, (low, low + len(piece)))
        chosen = torch.from_numpy(wanted[begin:end].astype(np.int64) - low)
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
