"""A real disk of a few kilobytes for the tests: a tmpfs that is mounted for one of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A mounted tmpfs.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path, kib: int) -> None:
        self.path = path
        path.mkdir()
        self._mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs")

    def _mount(self, *options: str) -> None:
        done = subprocess.run(
            ["mount", *options, str(self.path)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    def resize(self, kib: int) -> None:
        self._mount("-o", f"remount,size={kib}k")

    def make_read_only(self) -> None:
        """root may write into any folder, but not here."""
        self._mount("-o", "remount,ro")

    def fill(self, leave: int = 0) -> Path:
        """Fills the disk, but for so many bytes, with a file that it returns."""
        filler = self.path / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                file.truncate(max(file.tell() - leave, 0))
        return filler


@contextmanager
def small_disk(path: Path, kib: int) -> Iterator[Disk]:
    """Mounts a disk of ``kib`` KiB at ``path``, for as long as the block lasts.

    Skips the test where mounting is not permitted.
    """
    disk = Disk(path, kib)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
