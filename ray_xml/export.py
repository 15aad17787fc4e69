"""An exported model: one folder with everything that prediction needs and nothing else.

    OUT/
        manifest.json       format version, dtype, epoch, widths, the score's weights
        config.yaml         the run's config
        model.safetensors   the arrays, in 16 or 8 bits (see ``compact``)
        vectorizer.json, labels.txt, features.txt   those of the data set that there are

Adam's moments, labels without documents and the classifier's unnormalised weights stay behind.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Literal

import numpy as np

from ray_xml.blend import Blend
from ray_xml.checkpoint import write_json
from ray_xml.compact import pack_csr, pack_rows, unpack_csr, unpack_rows
from ray_xml.compact_file import load, save
from ray_xml.config import dump_config, load_config
from ray_xml.errors import CheckpointError, ConfigError
from ray_xml.model import Model
from ray_xml.neighbors import Neighbors
from ray_xml.run_config import RunConfig

FORMAT_VERSION = 1
BESIDE = ("vectorizer.json", "labels.txt", "features.txt")
_KIND = "ray_xml exported model"


def export(model: Model, data: Path, out: Path, dtype: Literal["fp16", "int8"]) -> int:
    """Writes ``model`` into the new folder ``out``.

    Args:
        data: the data-set folder; the files in it that give texts and labels a meaning go along.
        dtype: of the large arrays.

    Returns:
        the bytes written.

    Raises:
        ConfigError: ``out`` exists already.
        CheckpointError: the model holds numbers that are not finite.
    """
    if out.exists():
        raise ConfigError(f"{out} exists already; choose a new folder")
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    try:
        neighbors = model.neighbors
        arrays = {"labels": model.labels, "bias": model.bias.astype(np.float32)}
        if neighbors.weights is not None:
            arrays["weights"] = neighbors.weights.astype(np.float16)
        for name in ("table", "proxies", "rows"):
            arrays |= pack_rows(name, getattr(model, name), dtype)
        arrays |= pack_rows("weight", model.weight, "fp16")
        arrays |= pack_csr("documents", neighbors.documents, dtype)
        arrays |= pack_csr("document_labels", neighbors.labels, dtype)
        save(draft / "model.safetensors", arrays)
        (draft / "config.yaml").write_text(dump_config(model.config), encoding="utf-8")
        for name in BESIDE:
            if (data / name).is_file():
                shutil.copyfile(data / name, draft / name)
        manifest = {
            "kind": _KIND,
            "format_version": FORMAT_VERSION,
            "dtype": dtype,
            "epoch": model.epoch,
            "num_features": model.num_features,
            "num_labels": model.num_labels,
            "blend": model.blend.as_dict(),
        }
        write_json(draft / "manifest.json", manifest)
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return sum(file.stat().st_size for file in out.iterdir())


def is_export(path: Path) -> bool:
    """Whether ``path`` is an exported model's folder rather than a run folder."""
    return (path / "model.safetensors").is_file() and (path / "manifest.json").is_file()


def load_export(path: Path) -> Model:
    """The model exported to ``path``, its arrays as float32.

    Raises:
        CheckpointError: damaged, or of a newer format.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        version, kind = manifest["format_version"], manifest["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}/manifest.json: damaged ({error!r}); export again") from error
    if kind != _KIND or version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: {kind} of format version {version}, this ray_xml reads {FORMAT_VERSION}; "
            "use the version of ray_xml that wrote it, or export again"
        )
    config = load_config(RunConfig, path / "config.yaml")
    arrays = load(path / "model.safetensors")
    try:
        documents = unpack_csr("documents", arrays)
        known = unpack_csr("document_labels", arrays)
        weights = arrays.get("weights")
        neighbors = Neighbors(
            config.neighbors,
            documents,
            known,
            None if weights is None else weights.astype(np.float32),
        )
        model = Model(
            config=config,
            epoch=int(manifest["epoch"]),
            table=unpack_rows("table", arrays),
            weight=unpack_rows("weight", arrays),
            bias=arrays["bias"],
            labels=arrays["labels"],
            proxies=unpack_rows("proxies", arrays),
            rows=unpack_rows("rows", arrays),
            neighbors=neighbors,
            blend=Blend.from_dict(manifest["blend"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); export again") from error
    _check_shapes(path, model, manifest)
    return model


def _check_shapes(path: Path, model: Model, manifest: dict[str, object]) -> None:
    dim, known = model.table.shape[1], len(model.labels)
    found = {
        "num_features": model.num_features,
        "num_labels": model.num_labels,
        "documents": model.neighbors.documents.num_columns,
        "weight": model.weight.shape,
        "bias": model.bias.shape,
        "proxies": model.proxies.shape,
        "rows": model.rows.shape,
    }
    expected = {
        "num_features": manifest["num_features"],
        "num_labels": manifest["num_labels"],
        "documents": manifest["num_features"],
        "weight": (dim, dim),
        "bias": (dim,),
        "proxies": (known, dim),
        "rows": (known, dim + 1),
    }
    for name, want in expected.items():
        if found[name] != want:
            raise CheckpointError(
                f"{path}: damaged ({name} is {found[name]}, should be {want}); export again"
            )
