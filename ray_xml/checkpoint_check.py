"""Which checkpoints are good: every byte of their parts is the one that was written.

Whoever goes on with a run, or predicts with one, asks here first. A checkpoint that is damaged is
set aside under another name, where nothing looks for it and nothing deletes it.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ray_xml.checkpoint import ADVICE, epochs_in, folder_of, read_manifest
from ray_xml.disk import sha256_of, sync
from ray_xml.errors import CheckpointError, VersionError

_OPTIMIZER = "optimizer-"


def verify(folder: Path, *, weights_only: bool = False) -> dict[str, Any]:
    """Reads every part of a checkpoint and holds its checksum against the manifest.

    Args:
        weights_only: leave out the optimizers' moments, which prediction does not need.

    Returns:
        the manifest.

    Raises:
        VersionError: it is of another version of ray_xml.
        CheckpointError: it is damaged; the message names the file and what is wrong with it.
    """
    manifest = read_manifest(folder)
    told = {
        folder / name: part["sha256"]
        for name, part in manifest["parts"].items()
        if not (weights_only and name.startswith(_OPTIMIZER))
    }
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets threads run
        for path, found in zip(told, pool.map(_checksum, told), strict=True):
            if found != told[path]:
                raise CheckpointError(
                    f"{path}: its bytes are not the ones that were written (sha256 "
                    f"{found[:12]}…, the manifest says {told[path][:12]}…){ADVICE}"
                )
    return manifest


def _checksum(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}){ADVICE}") from error


def newest_good(root: Path) -> tuple[int, list[tuple[int, CheckpointError]]]:
    """(epoch of the newest checkpoint that is whole, or 0; the newer, damaged ones, newest first).

    Raises:
        VersionError: that is no damage, and not for us to judge.
    """
    damaged: list[tuple[int, CheckpointError]] = []
    for epoch in reversed(epochs_in(root)):
        try:
            verify(folder_of(root, epoch))
        except VersionError:
            raise
        except CheckpointError as error:
            damaged.append((epoch, error))
        else:
            return epoch, damaged
    return 0, damaged


def damage(error: CheckpointError) -> str:
    """What is wrong, without what to do about it: for those who do it themselves."""
    return str(error).removesuffix(ADVICE)


def set_aside(root: Path, epoch: int) -> Path:
    """Renames a damaged checkpoint so that it no longer counts as one; an earlier one of the same
    epoch gives way."""
    folder = folder_of(root, epoch)
    aside = folder.with_name(f"{folder.name}.damaged")
    if aside.exists():
        shutil.rmtree(aside)
    os.replace(folder, aside)
    sync(root)
    return aside
