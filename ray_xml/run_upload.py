"""Keeps a run's storage up with its run folder while the run is going on.

A thread of whoever watches the run sends what is new after each epoch; training does not wait for
it. What fails is told and tried again after the next epoch, and once more at the end.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any

from ray_xml.errors import StorageError
from ray_xml.run_folder import RunFolder
from ray_xml.run_storage import RunStorage

_POLL_SECONDS = 0.5


class Uploader:
    """Sends while the ``with`` block runs; on leaving it, everything has been sent.

    Args:
        storage: where to; None sends nothing.

    Raises:
        StorageError: on leaving, if the last attempt failed and nothing else did. The run folder
            is whole.
    """

    def __init__(self, folder: RunFolder, storage: RunStorage | None, out: Any = None) -> None:
        self._folder, self._storage = folder, storage
        self._out = out or sys.stderr
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="upload", daemon=True)

    def __enter__(self) -> Uploader:
        if self._storage is not None:
            self._storage.push(self._folder)  # fails now rather than after the first epoch
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._storage is None:
            return
        self._stop.set()
        self._thread.join()
        try:
            self._storage.push(self._folder)
        except StorageError as failed:
            said = (
                f"{failed}. Nothing is lost: the run is whole in {self._folder.path}, and the "
                "same command sends it again"
            )
            if kind is None:
                raise StorageError(said) from failed
            print(said, file=self._out, flush=True)

    def _follow(self) -> None:
        assert self._storage is not None
        sent = len(self._folder.lines())
        while not self._stop.wait(_POLL_SECONDS):
            lines = len(self._folder.lines())
            if lines == sent:
                continue
            sent = lines
            try:
                self._storage.push(self._folder)
            except StorageError as failed:
                said = f"{failed}. Training goes on; the next epoch's upload tries again"
                print(said, file=self._out, flush=True)
