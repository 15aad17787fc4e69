"""Checkpoints: a folder of safetensors parts, one manifest, made whole or not at all.

    checkpoints/epoch-0004/
        manifest.json               format version, epoch, shapes, parts with their checksums,
                                    data set, results
        tokens-00000.safetensors    columns of the token table, one file a worker
        encoder-00000.safetensors   residual block
        classifier-00000.safetensors  rows of a label range, one file a worker
        proxies-00000.safetensors   proxies of a label range, one file a shard (if fitted)
        optimizer-*-00000.safetensors  Adam's moments, apart from the weights

Every writer puts its parts, each with a note of its checksum, into a folder with a temporary
name; the last one gathers the notes in the manifest and renames. A folder with the final name is
therefore complete; ``checkpoint_check`` finds what has happened to it since. Parts carry the range
they hold, so they can be read back at any number of workers: ``pieces`` cuts what is wanted out of
whichever files hold it. torch is imported only where tensors are: whoever asks for manifests alone
need not wait for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ray_xml import __version__
from ray_xml.disk import replace_text, sha256_of, sync, writing
from ray_xml.errors import CheckpointError, VersionError
from ray_xml.json_text import count_of, parse_json, shown
from ray_xml.manifest import checked_manifest
from ray_xml.partition import Range, overlap

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 3  # 2 had no checksums
ADVICE = "; use another checkpoint of the run"  # the end of every message about damage
_PREFIX = "epoch-"
_NOTE = ".sha256"
_PIECE = 1 << 24  # numbers read at a time
_UNREADABLE = (SafetensorError, OSError, KeyError, TypeError, ValueError)


def folder_of(root: Path, epoch: int) -> Path:
    return root / f"{_PREFIX}{epoch:04d}"


def begin(root: Path, epoch: int) -> Path:
    """Makes the empty temporary folder that the parts of ``epoch`` go into."""
    folder = temporary(root, epoch)
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    return folder


def give_up(root: Path, epoch: int) -> None:
    """Removes what there is of an unfinished checkpoint, so that its space is free again."""
    shutil.rmtree(temporary(root, epoch), ignore_errors=True)


def temporary(root: Path, epoch: int) -> Path:
    """The folder that ``begin`` makes, for the other writers."""
    return root / f".{_PREFIX}{epoch:04d}.unfinished"


def save_part(
    folder: Path, kind: str, number: int, held: Range, tensors: Mapping[str, Tensor]
) -> None:
    """Writes one part: ``held`` is the range of labels or columns in it.

    Raises:
        DiskError: the disk is full or takes nothing.
    """
    from safetensors.torch import save_file

    path = folder / f"{kind}-{number:05d}.safetensors"
    with writing(path):
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            path,
            metadata={"low": str(held[0]), "high": str(held[1])},
        )
        # Read back from the page cache: hashing beside writing is no faster.
        note = path.with_name(path.name + _NOTE)
        note.write_text(f"{path.stat().st_size} {sha256_of(path)}\n", encoding="ascii")
        with suppress(PermissionError):  # safetensors leaves files that only their owner reads
            path.chmod(stat.S_IMODE(note.stat().st_mode))
        sync(path)


def finish(root: Path, epoch: int, manifest: Mapping[str, Any]) -> Path:
    """Adds the manifest and gives the folder its final name.

    Raises:
        CheckpointError: a part is not there as its writer left it.
        DiskError: the disk is full or takes nothing.
    """
    folder, final = temporary(root, epoch), folder_of(root, epoch)
    parts: dict[str, dict[str, Any]] = {}
    for note in sorted(folder.glob(f"*{_NOTE}")):
        size, checksum = note.read_text(encoding="ascii").split()
        parts[note.name.removesuffix(_NOTE)] = {"bytes": int(size), "sha256": checksum}
        note.unlink()
    there = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    if there != part_sizes({"parts": parts}):
        raise CheckpointError(
            f"{folder}: holds {there}, its writers left {part_sizes({'parts': parts})}; workers "
            "and label shards must share the run folder"
        )
    whole = {
        "format_version": FORMAT_VERSION,
        "ray_xml": __version__,
        "epoch": epoch,
        **manifest,
        "parts": parts,
    }
    write_json(folder / "manifest.json", sealed(whole))
    with writing(final):
        sync(folder)
        if final.exists():
            shutil.rmtree(final)
        os.replace(folder, final)
        sync(root)
    return final


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a checksum of itself."""
    plain = json.loads(json.dumps({k: v for k, v in manifest.items() if k != "seal"}))
    text = json.dumps(plain, sort_keys=True)
    return {**plain, "seal": hashlib.sha256(text.encode()).hexdigest()}


def part_sizes(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of each part, by its file name."""
    return {name: count_of(part["bytes"]) for name, part in manifest["parts"].items()}


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    replace_text(path, json.dumps(tree, indent=1))


def epochs_in(root: Path) -> list[int]:
    """Epochs of the complete checkpoints, ascending."""
    if not root.is_dir():
        return []
    names = [path.name.removeprefix(_PREFIX) for path in root.glob(f"{_PREFIX}*") if path.is_dir()]
    epochs = {int(name) for name in names if re.fullmatch("[0-9]{1,18}", name)}
    # epoch-2 is none of ours, and would not be where ``folder_of`` looks for it.
    return sorted(epoch for epoch in epochs if folder_of(root, epoch).is_dir())


def is_part(name: str) -> bool:
    """Whether a part may be called so: a plain name, in the checkpoint's own folder."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.safetensors", name) is not None


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
        VersionError: it is of another version of ray_xml.
        CheckpointError: missing or damaged, or a part is missing or cut short.
    """
    path = folder / "manifest.json"
    try:
        manifest = dict(parse_json(path.read_bytes()))
        version = count_of(manifest["format_version"])
        # Versions before 3 have no seal; a changed version number must not pass for one of them.
        unsealed = "seal" not in manifest and version < FORMAT_VERSION
        broken = not unsealed and manifest.get("seal") != sealed(manifest)["seal"]
        current = version == FORMAT_VERSION and not broken
        parts = part_sizes(manifest) if current else dict(manifest["parts"])
        strange = [name for name in parts if not is_part(str(name))]
        if strange:
            raise ValueError(f"{shown(strange[0])} is no part's name")
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no manifest.json, so this is no checkpoint") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}){ADVICE}") from error
    if broken:
        raise CheckpointError(f"{path}: damaged (its text is not the one written){ADVICE}")
    if version != FORMAT_VERSION:
        raise VersionError(
            f"{path}: format version {version}, this ray_xml reads {FORMAT_VERSION}; "
            "use the version of ray_xml that wrote it"
        )
    for name, size in parts.items():
        part = folder / name
        if not part.is_file():
            raise CheckpointError(f"{part}: missing{ADVICE}")
        if part.stat().st_size != size:
            raise CheckpointError(
                f"{part}: {part.stat().st_size} bytes, the manifest says {size}{ADVICE}"
            )
    try:
        return checked_manifest(manifest, path)
    except ValueError as error:
        raise _damaged(path, error) from error


def pieces(
    folder: Path, kind: str, name: str, wanted: Range, *, axis: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """The slice ``wanted`` along ``axis`` of a tensor, from whichever parts hold it, in order.

    Yields:
        (where the piece begins along ``axis``, counted from the slice's beginning; a piece of at
        most ``_PIECE`` numbers along axis 0).

    Raises:
        CheckpointError: a part is damaged, or the parts together do not hold all of it.
    """
    reached = wanted[0]
    shape_but: list[int] | None = None  # what all pieces have in common
    for held, path in _parts_in_order(folder, kind):
        shared = overlap(held, wanted)
        if shared is None or shared[0] != reached:
            continue
        try:
            with safe_open(path, framework="pt") as file:
                tensor = file.get_slice(name)
                shape = tensor.get_shape()
                if not axis < len(shape) <= 2 or shape[axis] != held[1] - held[0]:
                    raise ValueError(f"{name!r} is {shape}, its range is {held[0]}..{held[1]}")
                rest = [tensor.get_dtype(), *shape[:axis], *shape[axis + 1 :]]
                if shape_but not in (None, rest):
                    raise ValueError(f"{name!r} is {rest} here, but {shape_but} in other parts")
                shape_but = rest
                low, high = shared[0] - held[0], shared[1] - held[0]
                if axis == 1:
                    yield shared[0] - wanted[0], tensor[:, low:high]
                else:
                    rows = max(1, _PIECE // max(1, shape[1] if len(shape) > 1 else 1))
                    for first in range(low, high, rows):
                        piece = tensor[first : min(first + rows, high)]
                        yield held[0] + first - wanted[0], piece
        except _UNREADABLE as error:
            raise _damaged(path, error) from error
        reached = shared[1]
    if reached != wanted[1]:
        raise CheckpointError(
            f"{folder}: the {kind} parts do not hold {wanted[0]}..{wanted[1]} of {name!r}{ADVICE}"
        )


def _parts_in_order(folder: Path, kind: str) -> list[tuple[Range, Path]]:
    found = []
    for path in folder.glob(f"{kind}-[0-9]*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                found.append(((int(file.metadata()["low"]), int(file.metadata()["high"])), path))
        except _UNREADABLE as error:
            raise _damaged(path, error) from error
    return sorted(found)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path}: damaged ({error}){ADVICE}")


def load_range(folder: Path, kind: str, name: str, wanted: Range, *, axis: int = 0) -> np.ndarray:
    """All of ``pieces`` together, for what is small; bfloat16 comes out as float32."""
    import torch

    found = [piece for _, piece in pieces(folder, kind, name, wanted, axis=axis)]
    if not found:
        raise CheckpointError(f"{folder}: nothing of {name!r} is asked for; use another checkpoint")
    whole = torch.cat(found, dim=axis)
    whole = whole.float() if whole.dtype == torch.bfloat16 else whole
    return np.asarray(whole.numpy())


def load_into(tensor: Tensor, folder: Path, kind: str, name: str, wanted: Range, axis: int) -> None:
    """Fills ``tensor`` with the slice, piece by piece.

    Raises:
        CheckpointError: as ``pieces``, or it has another shape or type.
    """
    import torch

    for first, piece in pieces(folder, kind, name, wanted, axis=axis):
        shape = [*tensor.shape]
        shape[axis] = piece.shape[axis]
        if shape != [*piece.shape] or tensor.dtype != piece.dtype:
            raise CheckpointError(
                f"{folder}: {name!r} is {piece.dtype} {list(piece.shape)}, the config asks for "
                f"{tensor.dtype} {shape}"
            )
        into = tensor.narrow(axis, first, piece.shape[axis])
        with torch.no_grad():
            into.copy_(piece)
