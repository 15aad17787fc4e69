"""An exported model: one folder with everything that prediction needs and nothing else.

    OUT/
        manifest.json       format version, dtype, epoch, widths, the score's weights,
                            probabilities, documents of train
        config.yaml         the run's config
        model.safetensors   the arrays, in 16 or 8 bits (see ``compact``)
        vectorizer.json, labels.txt, features.txt   those of the data set that there are
    train_documents.jsonl   likewise, names of the training documents, where asked for

Adam's moments, labels without documents and the classifier's unnormalised weights stay behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_xml.checkpoint import write_json
from ray_xml.compact import pack_csr, pack_rows, shape_of_rows, unpack_csr, unpack_rows
from ray_xml.compact_file import load, save
from ray_xml.config import dump_config, load_config
from ray_xml.errors import CheckpointError, ConfigError, DataSetError
from ray_xml.export_manifest import (
    FORMAT_VERSION,
    KIND,
    ExportManifest,
    read_export_manifest,
)
from ray_xml.lexical import Lexical
from ray_xml.model import DocumentModel, Model, RangeModel
from ray_xml.neighbors import Neighbors
from ray_xml.partition import even
from ray_xml.quantise import Dtype, check_peaks
from ray_xml.run_config import RunConfig
from ray_xml.run_data import label_texts
from ray_xml.store import DataSet
from ray_xml.store_meta import FEATURE_NAMES, LABEL_NAMES

ARRAYS = "model.safetensors"
_FREE_WIDTH = 1 << 20  # labels or features, without a byte of the file for each
BESIDE = ("vectorizer.json", LABEL_NAMES, FEATURE_NAMES)
DOCUMENT_NAMES = "train_documents.jsonl"
_OF_LABELS = ("proxies", "rows")
_OF_DOCUMENTS = ("table", "weights", "bias", "documents", "vectors")


def export(
    model: Model,
    data: Path,
    out: Path,
    dtype: Dtype,
    *,
    document_names: bool = False,
    labels: Sequence[str] | None = None,
) -> int:
    """Writes ``model`` into the new folder ``out``.

    Args:
        data: the data-set folder; the files in it that give texts and labels a meaning go along.
        dtype: of the large arrays.
        document_names: take along those of the training documents, if they have any.
        labels: the labels' names, if they are not the data set's.

    Returns:
        the bytes written.

    Raises:
        ConfigError: ``out`` exists already.
        ExportError: the model holds numbers that are not finite, or too large for ``dtype``.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; choose a new folder")
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        neighbors = model.neighbors
        check_peaks("bias", np.abs(model.bias), dtype)
        arrays = {"bias": model.bias.astype(np.float32)}
        if neighbors.weights is not None:
            arrays["weights"] = neighbors.weights.astype(np.float16)
        for name in ("table", "proxies", "rows"):
            arrays |= pack_rows(name, getattr(model, name), dtype)
        arrays |= pack_rows("weight", model.weight, "fp16")
        arrays |= pack_csr("documents", neighbors.documents, dtype)
        arrays |= pack_csr("document_labels", neighbors.labels, dtype)
        if neighbors.vectors is not None:
            arrays |= pack_rows("vectors", neighbors.vectors, dtype)
        save(draft / ARRAYS, arrays)
        (draft / "config.yaml").write_text(dump_config(model.config), encoding="utf-8")
        for name in (*BESIDE, DOCUMENT_NAMES) if document_names else BESIDE:
            if (data / name).is_file():
                shutil.copyfile(data / name, draft / name)
        if labels is not None:
            text = "".join(f"{name}\n" for name in labels)
            (draft / LABEL_NAMES).write_text(text, encoding="utf-8", newline="\n")
        manifest = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "dtype": dtype,
            "epoch": model.epoch,
            "num_features": model.num_features,
            "num_labels": model.num_labels,
            "blend": model.blend.as_dict(),
            "exact": list(model.exact),
            "probability": model.probability.as_dict(),
            "added": [one.as_dict() for one in model.added],
            **_documents(data, model.config),
        }
        write_json(draft / "manifest.json", manifest)
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return sum(file.stat().st_size for file in out.iterdir())


def is_export(path: Path) -> bool:
    """Whether ``path`` is an exported model's folder rather than a run folder."""
    # A run folder has neither, a checkpoint has no config; one that lost a file is still an export.
    manifest, config = path / "manifest.json", path / "config.yaml"
    return (path / ARRAYS).is_file() or (manifest.is_file() and config.is_file())


def load_export(path: Path) -> Model:
    """The model exported to ``path``.

    Raises:
        CheckpointError: damaged, or of a newer format.
    """
    held = _open(path)
    return Model.of(_documents_of(held), _range_of(held))


def load_documents(path: Path) -> DocumentModel:
    """The documents' side of the model exported to ``path``; errors: as ``load_export``."""
    return _documents_of(_open(path, _OF_LABELS))


def load_range(path: Path, number: int = 0, of: int = 1) -> RangeModel:
    """Some labels of the model exported to ``path``: the part ``number`` of ``of`` equal ones.

    Errors are those of ``load_export``.
    """
    return _range_of(_open(path, _OF_DOCUMENTS), number, of)


@dataclass(frozen=True)
class _Opened:
    """An exported model's files, read and not yet unpacked; ``file`` is in messages."""

    manifest: ExportManifest
    config: RunConfig
    file: Path
    arrays: dict[str, np.ndarray]


def _open(path: Path, leave_out: tuple[str, ...] = ()) -> _Opened:
    manifest = read_export_manifest(path)
    config = export_config(path)
    file = path / ARRAYS
    arrays = load(file, leave_out=leave_out)
    widths = {"documents": manifest.num_features, "document_labels": manifest.num_labels}
    _check_widths(file, arrays, {k: v for k, v in widths.items() if k not in leave_out})
    return _Opened(manifest, config, file, arrays)


def _documents_of(held: _Opened) -> DocumentModel:
    manifest, config, file, arrays = held.manifest, held.config, held.file, held.arrays
    weights = arrays.get("weights")
    with _damage(file):
        neighbors = Neighbors.of_documents(
            config.neighbors,
            unpack_csr("documents", arrays, file),
            unpack_csr("document_labels", arrays, file),
            None if weights is None else weights.astype(np.float32),
            unpack_rows("vectors", arrays, file, np.float16)
            if any(name.startswith("vectors.") for name in arrays)
            else None,
        )
        model = DocumentModel(
            config=config,
            epoch=manifest.epoch,
            table=unpack_rows("table", arrays, file),
            weight=unpack_rows("weight", arrays, file),
            bias=arrays["bias"].astype(np.float32, casting="same_kind"),
            lexical=Lexical.build(neighbors),
            blend=manifest.blend,
            probability=manifest.probability,
            added=manifest.added,
        )
    dim = model.table.shape[1]
    shapes = {
        "table": (model.table.shape, (manifest.num_features, dim)),
        "weight": (model.weight.shape, (dim, dim)),
        "bias": (model.bias.shape, (dim,)),
        "documents": ((neighbors.num_features,), (manifest.num_features,)),
        "document_labels": ((neighbors.num_labels,), (manifest.num_labels,)),
    }
    _check_shapes(file, shapes)
    for name, array in (("bias", model.bias), ("weights", neighbors.weights)):
        if array is not None and not np.isfinite(array).all():
            raise CheckpointError(f"{file}: damaged, {name} is not finite; export again")
    return model


def _range_of(held: _Opened, number: int = 0, of: int = 1) -> RangeModel:
    manifest, config, file, arrays = held.manifest, held.config, held.file, held.arrays
    with _damage(file):
        documents_of = unpack_csr("document_labels", arrays, file).column_counts()
        known = np.flatnonzero(documents_of).astype(np.int32)
        dim = shape_of_rows("weight", arrays, file)[1]
        shapes = {
            "proxies": (shape_of_rows("proxies", arrays, file), (len(known), dim)),
            "rows": (shape_of_rows("rows", arrays, file), (len(known), dim + 1)),
            "document_labels": ((len(documents_of),), (manifest.num_labels,)),
        }
        _check_shapes(file, shapes)
        low, high = even(len(known), of)[number]
        kind = config.shortlist.dtype(len(known))
        proxies, rows = (
            unpack_rows(name, arrays, file, kind, (low, high)) for name in ("proxies", "rows")
        )
    return RangeModel(config, known[low:high], proxies, rows, manifest.exact)


def export_config(path: Path) -> RunConfig:
    """The run's config in an exported model; errors are those of ``load_export``."""
    try:
        config = load_config(RunConfig, path / "config.yaml")
    except ConfigError as error:
        raise CheckpointError(f"{error}; the exported model is damaged, export again") from error
    config.check_resolved(path)
    return config


@contextmanager
def _damage(file: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged ({error!r}); export again") from error


def label_names(path: Path) -> list[str] | None:
    """The label names by id that were exported to ``path``, or None if there are none.

    Raises:
        CheckpointError: damaged.
    """
    file = path / LABEL_NAMES
    if not is_export(path) or not file.is_file():
        return None
    try:
        names = file.read_bytes().decode("utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: damaged ({error}); export again") from error
    expected = read_export_manifest(path).num_labels
    if len(names) != expected:
        raise CheckpointError(f"{file}: {len(names):,} names, not {expected:,}; export again")
    return names


def export_dtype(path: Path) -> Dtype:
    """The type of the large arrays of the model exported to ``path``; errors are those of
    ``load_export``."""
    return read_export_manifest(path).dtype


def train_documents(path: Path) -> tuple[int, int]:
    """(the documents of the train split, fitted or held out; the label texts behind them) of the
    model exported to ``path``.

    Raises:
        CheckpointError: damaged, or it does not tell.
    """
    manifest = read_export_manifest(path)
    if manifest.train_documents is None:
        raise CheckpointError(
            f"{path}: does not say which documents it was trained on; export it again where the "
            "data set is"
        )
    return manifest.train_documents, manifest.label_texts


def _documents(data: Path, config: RunConfig) -> dict[str, int | None]:
    """Of the data set, if it is there."""
    try:
        opened = DataSet.open(data)
        texts = label_texts(opened, config)
        return {
            "train_documents": opened.split("train").num_documents,
            "label_texts": 0 if texts is None else texts.num_documents,
        }
    except DataSetError:
        return {"train_documents": None, "label_texts": 0}


def _check_widths(file: Path, arrays: Mapping[str, np.ndarray], widths: Mapping[str, int]) -> None:
    """Refuses widths that a file of this size cannot need, before anything is made of their size.

    A label that can be predicted takes dozens of bytes of the file; there may be a few without.
    """
    size = sum(array.nbytes for array in arrays.values())
    for name, width in widths.items():
        stored = arrays.get(f"{name}.num_columns")
        if stored is None or stored.shape != (1,) or stored[0] != width:
            raise CheckpointError(
                f"{file}: damaged, {name} is not {width:,} wide as the manifest says; export again"
            )
        if width > max(_FREE_WIDTH, size):
            raise CheckpointError(
                f"{file}: damaged, {width:,} {name} columns for {size:,} bytes; export again"
            )


def _check_shapes(
    file: Path, shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise CheckpointError(
                f"{file}: damaged, {name} is {list(found)}, not {list(expected)}; export again"
            )
