"""The folder that a data set is built in: ``.NAME.partial-*`` beside its final place.

While a writer lives, it holds a lock on the folder's file ``.writer``, which names the machine and
its boot. If a writer is killed, the lock goes and the folder stays. The next writer of the same
data set deletes it if both show that nobody builds there any more: the file names its own machine
and boot (a lock held elsewhere may not be seen), and it gets the lock. Unlike a process id, a lock
cannot pass to a later process. Any other partial folder is left alone, such as one from before a
restart of the machine; a user may delete it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_xml.disk import sync
from ray_xml.errors import DataSetError

OWNER = ".writer"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _machine() -> bytes:
    """Names this machine and its boot, as no other; empty where that cannot be done."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii")
    except OSError:
        return b""
    return f"{socket.gethostname()} {boot}".encode()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full disk and the like into a DataSetError."""
    try:
        yield
    except OSError as error:
        raise DataSetError(
            f"{path} cannot be written ({error.strerror or error}): "
            "make room there, or choose another output folder"
        ) from error


class PartialFolder:
    """A folder in the making.

    Args:
        target: the folder's final place.

    Attributes:
        path: where it is until then.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = self._sibling("partial")
        self._lock: int | None = None

    def _sibling(self, purpose: str) -> Path:
        return self._target.parent / f".{self._target.name}.{purpose}-{secrets.token_hex(4)}"

    def make(self) -> None:
        """Makes the empty folder, and deletes what killed writers left beside it."""
        remove_abandoned(self._target)
        self.path.mkdir(parents=True)
        with suppress(OSError):  # then nobody will take the folder for abandoned, which is safe
            self._lock = os.open(self.path / OWNER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._lock, _machine())  # only now: who reads it can rely on the lock

    def flush(self) -> None:
        """Waits until the folder's files are on the disk."""
        for path in self.path.iterdir():
            sync(path)

    def put_in_place(self, *, replaces: bool) -> None:
        """Renames the folder to its final name.

        Args:
            replaces: whether there is a folder of that name to be replaced.
        """
        (self.path / OWNER).unlink(missing_ok=True)
        sync(self.path)
        old = self._sibling("old")
        if replaces:
            self._target.rename(old)
        try:
            self.path.rename(self._target)
        except OSError:
            if replaces:
                old.rename(self._target)
            raise
        sync(self._target.parent)
        shutil.rmtree(old, ignore_errors=True)

    def remove(self) -> None:
        """Ends the work: deletes the folder unless it is in place."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_abandoned(target: Path) -> None:
    """Deletes the partial folders of ``target`` whose writers are known to be dead."""
    name = re.compile(re.escape(f".{target.name}.partial-") + "[0-9a-f]{8}")
    try:
        beside = [path for path in target.parent.iterdir() if name.fullmatch(path.name)]
    except OSError:
        return
    for path in beside:
        with suppress(OSError):  # among them BlockingIOError: the writer lives
            _remove_if_abandoned(path)


def _remove_if_abandoned(folder: Path) -> None:
    handle = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    try:
        here = _machine()
        if here and os.read(handle, len(here) + 1) == here:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
