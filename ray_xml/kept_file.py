"""A file that several runs would each compute alike: the first computes and keeps it for all.

An entry is a folder named after everything that determines the file. It gets its name when all
of it is on the disk, holds the file's checksum beside the file, and is computed again if the two
do not agree. While one run computes it, the others that need it wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_xml.disk import replace_text, sha256_of, sync, writing
from ray_xml.json_text import parse_json

_FILE, _META = "file", "meta.json"


class KeptFile:
    """An entry of the cache ``folder``.

    Args:
        kind: what it is, the beginning of its name.
        key: JSON-ready; all that its bytes depend on.
    """

    def __init__(self, folder: Path, kind: str, key: Mapping[str, Any]) -> None:
        self._key = json.loads(json.dumps(key))
        text = json.dumps(self._key, sort_keys=True)
        self._entry = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    @property
    def path(self) -> Path:
        """Where the file is, if ``good``."""
        return self._entry / _FILE

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other process is in this block for the same entry.

        The kernel lets go of it when the process ends. Where a file system cannot lock, runs that
        begin at once compute the same thing.
        """
        with writing(self._entry):
            self._entry.parent.mkdir(parents=True, exist_ok=True)
            held = os.open(self._entry.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX)
            except OSError as error:
                print(
                    f"{self._entry.parent}: its file system cannot lock ({error.strerror}), so "
                    "runs that begin at once do the same work",
                    file=sys.stderr,
                )
            yield
        finally:
            os.close(held)

    def good(self) -> bool:
        """Whether the file is there, and is the one that was kept; a damaged one is removed."""
        try:
            told = parse_json((self._entry / _META).read_bytes())
            whole = bool(told["key"] == self._key and told["sha256"] == sha256_of(self.path))
        except FileNotFoundError:
            whole = False
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole and self._entry.exists():
            print(f"{self._entry}: damaged; it is made again", file=sys.stderr)
            shutil.rmtree(self._entry, ignore_errors=True)
        return whole

    def keep(self, write: Callable[[Path], None]) -> None:
        """Makes the entry of the file that ``write`` puts under the path it is given.

        Raises:
            DiskError: the disk is full; there is no entry.
        """
        draft = self._entry.with_name(f".{self._entry.name}.{os.getpid()}")
        try:
            with writing(self._entry):
                draft.mkdir(parents=True, exist_ok=True)
                write(draft / _FILE)
                sync(draft / _FILE)
                told = {"key": self._key, "sha256": sha256_of(draft / _FILE)}
                replace_text(draft / _META, json.dumps(told))
                sync(draft)
                if not self._entry.exists():
                    draft.rename(self._entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, or its copy where file systems differ."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
