"""Checkpoints: a folder of safetensors parts, one manifest, made whole or not at all.

    checkpoints/epoch-0004/
        manifest.json               format version, epoch, shapes, parts, data set, results
        tokens-00000.safetensors    columns of the token table, one file a worker
        encoder-00000.safetensors   residual block
        classifier-00000.safetensors  rows of a label range, one file a worker
        proxies-00000.safetensors   proxies of a label range, one file a shard (if fitted)
        optimizer-*-00000.safetensors  Adam's moments, apart from the weights

Every writer puts its parts into a folder with a temporary name; the last one adds the manifest
and renames. A folder with the final name is therefore complete. Parts carry the range they hold,
so they can be read back at any number of workers: ``load_range`` cuts what it needs out of
whichever files hold it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ray_xml.errors import CheckpointError
from ray_xml.partition import Range, overlap

FORMAT_VERSION = 2
_PREFIX = "epoch-"


def folder_of(root: Path, epoch: int) -> Path:
    return root / f"{_PREFIX}{epoch:04d}"


def begin(root: Path, epoch: int) -> Path:
    """Makes the empty temporary folder that the parts of ``epoch`` go into."""
    folder = temporary(root, epoch)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def temporary(root: Path, epoch: int) -> Path:
    """The folder that ``begin`` makes, for the other writers."""
    return root / f".{_PREFIX}{epoch:04d}.unfinished"


def save_part(
    folder: Path, kind: str, number: int, held: Range, tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes one part: ``held`` is the range of labels or columns in it."""
    path = folder / f"{kind}-{number:05d}.safetensors"
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        path,
        metadata={"low": str(held[0]), "high": str(held[1])},
    )


def finish(root: Path, epoch: int, manifest: Mapping[str, Any]) -> Path:
    """Adds the manifest and gives the folder its final name."""
    folder, final = temporary(root, epoch), folder_of(root, epoch)
    parts = {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))}
    whole = {"format_version": FORMAT_VERSION, "epoch": epoch, **manifest, "parts": parts}
    write_json(folder / "manifest.json", whole)
    if final.exists():
        shutil.rmtree(final)
    os.replace(folder, final)
    return final


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(tree, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def epochs_in(root: Path) -> list[int]:
    """Epochs of the complete checkpoints, ascending."""
    if not root.is_dir():
        return []
    names = [path.name.removeprefix(_PREFIX) for path in root.glob(f"{_PREFIX}*")]
    return sorted(int(name) for name in names if name.isdigit())


def remove_others(root: Path, keep: set[int]) -> None:
    """Deletes the complete checkpoints whose epoch is not in ``keep``, and unfinished ones."""
    for epoch in epochs_in(root):
        if epoch not in keep:
            shutil.rmtree(folder_of(root, epoch))
    for path in root.glob(f".{_PREFIX}*.unfinished"):
        shutil.rmtree(path)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete checkpoint whose parts are all there.

    Raises:
        CheckpointError: missing, damaged, of a newer format, or a part is missing or cut short.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = int(manifest["format_version"])
        parts = dict(manifest["parts"])
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no manifest.json, so this is no checkpoint") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); use another checkpoint of the run"
        ) from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this ray_xml reads {FORMAT_VERSION}; "
            "use the version of ray_xml that wrote it"
        )
    for name, size in parts.items():
        part = folder / name
        if not part.is_file():
            raise CheckpointError(f"{part}: missing; use another checkpoint of the run")
        if part.stat().st_size != size:
            raise CheckpointError(
                f"{part}: {part.stat().st_size} bytes, the manifest says {size}; "
                "use another checkpoint of the run"
            )
    return dict(manifest)


def load_range(folder: Path, kind: str, name: str, wanted: Range, *, axis: int = 0) -> np.ndarray:
    """The slice ``wanted`` along ``axis`` of tensor ``name``, from whichever parts hold it.

    Raises:
        CheckpointError: a part is damaged, or the parts together do not hold all of it.
    """
    pieces: list[tuple[int, np.ndarray]] = []
    for path in sorted(folder.glob(f"{kind}-[0-9]*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                held = (int(file.metadata()["low"]), int(file.metadata()["high"]))
                shared = overlap(held, wanted)
                if shared is None:
                    continue
                tensor = file.get_slice(name)
                low, high = shared[0] - held[0], shared[1] - held[0]
                piece = tensor[low:high] if axis == 0 else tensor[:, low:high]
                pieces.append((shared[0], np.asarray(piece)))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: damaged ({error}); use another checkpoint of the run"
            ) from error
    pieces.sort(key=lambda item: item[0])
    if sum(piece.shape[axis] for _, piece in pieces) != wanted[1] - wanted[0]:
        raise CheckpointError(
            f"{folder}: the {kind} parts do not hold {wanted[0]}..{wanted[1]} of {name!r}; "
            "use another checkpoint of the run"
        )
    return np.concatenate([piece for _, piece in pieces], axis=axis)
